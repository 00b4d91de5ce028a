import json

import pytest

from moreseek.data import gsm8k
from moreseek.data.problems import ProblemSource, load_problems
from moreseek.data.split import split_of
from moreseek.errors import InputError
from moreseek.records import Problem, write_jsonl


@pytest.fixture
def problem_file(tmp_path):
    path = tmp_path / "problems.jsonl"
    write_jsonl(path, [Problem(prompt=f"{i}+1=", answer=str(i + 1)) for i in range(200)])
    return path


def not_problems(count, split, seed):
    return ["x"] * count


def too_few(count, split, seed, words=1):
    return [Problem(prompt="1+1=", answer="2")]


def test_one_file_splits_into_disjoint_sides(problem_file):
    source = ProblemSource(path=str(problem_file))
    train, heldout = load_problems(source, None, "train", 1), load_problems(source, None, "heldout", 1)
    assert len(train) + len(heldout) == 200
    assert {split_of(problem.prompt) for problem in heldout} == {"heldout"}
    assert len(heldout) > 5


def test_a_count_is_a_sample_that_the_seed_chooses(problem_file):
    source = ProblemSource(path=str(problem_file))
    assert load_problems(source, 10, "train", 1) == load_problems(source, 10, "train", 1)
    assert load_problems(source, 10, "train", 1) != load_problems(source, 10, "train", 2)


def test_a_second_file_is_held_out_whole_and_leaks_are_refused(problem_file, tmp_path):
    other = tmp_path / "test.jsonl"
    write_jsonl(other, [Problem(prompt="what?", answer="1")])
    source = ProblemSource(path=str(problem_file), settings={"heldout_path": str(other)})
    assert len(load_problems(source, None, "train", 1)) == 200
    assert [problem.prompt for problem in load_problems(source, None, "heldout", 1)] == ["what?"]
    write_jsonl(other, [Problem(prompt="7+1=", answer="8")])
    with pytest.raises(InputError, match=r"'7\+1='"):
        load_problems(source, None, "heldout", 1)


def test_a_file_may_belong_to_one_side_whole(problem_file):
    source = ProblemSource(path=str(problem_file), settings={"all": True})
    assert len(load_problems(source, None, "heldout", 1)) == 200


@pytest.mark.parametrize(
    ("source", "count", "message"),
    [
        ({"path": "nowhere.jsonl"}, 1, "nowhere.jsonl: no such file"),
        ({}, 1, "needs a path"),
        ({"source": "moreseek.data.arithmetic:problem"}, 1, "Did you mean 'problems'"),
        ({"source": "moreseek.data.arithmetic:problems"}, None, "say how many"),
        ({"source": "moreseek.data.arithmetic:problems", "settings": {"max_values": 9}}, 1, "Did you mean 'max_value'"),
        ({"source": f"{__name__}:not_problems"}, 1, "must return a list"),
        ({"source": f"{__name__}:too_few"}, 2, "2 problems wanted, 1 found"),
        ({"source": f"{__name__}:too_few", "settings": {"word": 2}}, 2, "setting 'word'. Did you mean 'words'"),
        ({"source": "reasoning-gym:chain_sums"}, 1, "Did you mean 'chain_sum'"),
        ({"source": "reasoning-gym:chain_sum", "settings": {"min_term": 2}}, 1, "Did you mean 'min_terms'"),
        ({"source": "reasoning-gym:chain_sum", "settings": {"min_terms": 0}}, 1, "min_terms"),
    ],
)
def test_a_wrong_source_is_explained(source, count, message):
    with pytest.raises(InputError, match=message):
        load_problems(ProblemSource(**source), count, "train", 1)


def test_too_few_problems_says_how_many_there_are(problem_file):
    with pytest.raises(InputError, match=r"500 problems wanted, 1\d\d found"):
        load_problems(ProblemSource(path=str(problem_file)), 500, "train", 1)


def test_a_file_of_which_nothing_is_held_out_says_how_that_is_decided(tmp_path):
    path = tmp_path / "one.jsonl"
    path.write_text('{"prompt": "I=", "answer": "1"}\n')
    sides = [split for split in ("train", "heldout") if split != split_of("I=")]
    with pytest.raises(InputError, match=r"of its 1 problems none is .*hash of each prompt decides"):
        load_problems(ProblemSource(path=str(path)), None, sides[0], 1)


def test_a_malformed_line_is_named(problem_file):
    with problem_file.open("a") as file:
        file.write('{"prompt": "x"}\n')
    with pytest.raises(InputError, match=r"problems\.jsonl:201: key 'answer' is missing"):
        load_problems(ProblemSource(path=str(problem_file)), None, "train", 1)


def test_gsm8k_files_become_problems(tmp_path):
    path, heldout = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    line = {"question": "Clips?", "answer": "48/2 = <<48/2=24>>24\n48+24 = <<48+24=1072>>1072\n#### 1,072"}
    path.write_text(json.dumps(line) + "\n")
    heldout.write_text(json.dumps({**line, "question": "Other?"}) + "\n")
    source = ProblemSource(
        source="moreseek.data.gsm8k:problems", path=str(path), settings={"heldout_path": str(heldout)}
    )
    (problem,) = load_problems(source, 1, "train", 1)
    assert (problem.prompt, problem.answer, problem.tags) == ("Clips?", "1072", {"difficulty": 2})
    assert load_problems(source, 1, "heldout", 1)[0].prompt == "Other?"
    with pytest.raises(InputError, match="2 problems wanted, 1 found"):
        gsm8k.problems(2, "train", 1, str(path), str(heldout))
    path.write_text('{"question": "q", "answer": "42"}\n')
    with pytest.raises(InputError, match="####"):
        gsm8k.problems(1, "train", 1, str(path), str(heldout))
