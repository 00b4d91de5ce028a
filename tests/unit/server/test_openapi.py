"""The OpenAPI document says what the server does."""

from moreseek.server.openapi import POSTS


def references(value):
    if isinstance(value, dict):
        for key, item in value.items():
            yield from [item] if key == "$ref" else references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def test_the_document_is_whole(client):
    told = client("GET", "/openapi.json").json()
    schemas = told["components"]["schemas"]
    assert {reference.removeprefix("#/components/schemas/") for reference in references(told)} <= set(schemas)
    assert set(schemas["ErrorBody"]["properties"]) == {"message", "type", "param", "code"}
    assert schemas["CompletionRequest"]["properties"]["n"]["maximum"] == 16
    assert "schema" in schemas["TextFormat"]["properties"]


def test_every_path_of_the_document_answers_as_it_says(client):
    paths = client("GET", "/openapi.json").json()["paths"]
    for path, operations in paths.items():
        for method in set(operations) - {"parameters"}:
            answer = client(method.upper(), path.replace("{id}", "none"), content=b"{}" if method == "post" else None)
            assert str(answer.status_code) in operations[method]["responses"], (method, path)
            assert answer.status_code != 500
            kind = answer.headers["content-type"].split(";")[0]
            assert kind in operations[method]["responses"][str(answer.status_code)]["content"], (method, path)
    for path, _, _, _ in POSTS:
        answer = client("TRACE", path)
        assert (answer.status_code, "POST" in answer.headers["allow"]) == (405, True)


def test_a_whole_number_may_have_a_point(client):
    asked = {"model": "tiny", "prompt": [104.0, 105], "max_tokens": 1.0, "temperature": 0}
    assert client("POST", "/v1/completions", json=asked).status_code == 200
    wrong = client("POST", "/v1/completions", json=asked | {"max_tokens": 1.5})
    assert wrong.json()["error"]["param"] == "max_tokens"
