import time

import pytest

from moreseek.errors import InputError
from moreseek.records import Message
from moreseek.text import allowance
from moreseek.text.template import ChatTemplate

USER = Message(role="user", content="<b>é</b>")


def render(source, **variables):
    return ChatTemplate(source).render([USER], **variables)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ messages[0] | tojson }}", '{"role": "user", "content": "<b>é</b>"}'),
        ("{% for m in messages %}\n{{ m.role }}\n{% endfor %}", "user\n"),
        ("{% for i in range(5) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}!", "<b>é</b>!"),
        ("{{ bos }}{% if tools %}x{% endif %}", "B"),
        ("{{ strftime_now('%Y') | length }}", "4"),
        ("{{ '-' * 3 }}{{ 7 % 4 }}{{ 'a' | center(3) }}{{ 'b' | indent(2, true) }}", "---3 a   b"),
        ("{{ ['a', 1] | join('-') }}{{ 'aba' | replace('a', 'c') }}{{ 'a-b'.split('-') | join }}", "a-1cbcab"),
        ("{{ 'a' ~ 1 ~ none }}{{ 'x' + 'y' }}{{ '%s!' | format('z') }}{{ '{}?'.format(2) }}", "a1Nonexyz!2?"),
    ],
)
def test_templates_render_as_in_transformers(source, expected):
    assert render(source, bos="B") == expected


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception('no') }}",
        "{{ 'a' * 1000000000 }}",
        "{{ 1000000000 * [1] }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ 'a'.center(1000000000) }}",
        "{{ 'a' | center(1000000000) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ [1] | tojson(indent=1000000000) }}",
        "{% for i in range(1000000000) %}{% endfor %}",
        "{% for i in range(9999) %}{% for j in range(9999) %}aaaaaaaaaaaa{% endfor %}{% endfor %}",
        "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(s='a') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
        "{% set ns = namespace(s='a') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}",
        "{% set ns = namespace(n=9) %}{% for i in range(99) %}{% set ns.n = ns.n * ns.n %}{% endfor %}{{ ns.n }}",
        "{% set s = 'a' * 7000000 %}{{ s.replace('a', s) }}",
        "{% set s = 'a' * 7000000 %}{{ s | replace('a', s) }}",
        "{% set s = 'a' * 7000000 %}{{ ([s] * 7000) | join }}",
        "{% set s = 'a' * 7000000 %}{{ s.join('aaaaa') }}",
        "{{ lipsum(n=100000000) }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_a_hostile_template_is_stopped_soon(source, monkeypatch):
    monkeypatch.setattr(allowance, "MAX_RENDER_S", 0.2)
    start = time.monotonic()
    with pytest.raises(InputError, match="chat template"):
        render(source)
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("source", ["{% if %}", "{{ x", "{% include 'file' %}"])
def test_an_invalid_template_is_refused(source):
    with pytest.raises(InputError, match="chat template"):
        render(source)
