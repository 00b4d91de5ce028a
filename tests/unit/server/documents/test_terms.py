"""What texts are taken apart into, for the index and for a question."""

from hypothesis import given
from hypothesis import strategies as st

from moreseek.server.documents.terms import asked, dense, indexed


def test_chinese_is_indexed_by_characters_and_pairs_and_words_whole():
    assert indexed("退货须在30天内。API v2") == "退 货 须 在 退货 货须 须在 30 天 内 天内 api v2"


def test_a_question_looks_for_pairs_and_for_a_character_that_stands_alone():
    assert asked("退货期限") == ["退货", "货期", "期限"]
    assert asked("盐") == ["盐"]


def test_words_of_questions_are_not_looked_for_and_no_pair_reaches_across_them():
    assert asked("What is the limit of a request?") == ["limit", "request"]
    assert asked("退货的期限是多少天？") == ["退货", "期限", "天"]
    assert asked("怎么样？") == asked("what is it?") == asked("?! …") == []


def test_wide_letters_case_and_forms_make_no_difference():
    assert asked("ＡＰＩ密钥") == asked("api密钥") == ["api", "密钥"]
    assert indexed("Ｇｒößer") == "grösser"


def test_kana_and_hangul_are_taken_apart_as_han_is():
    assert asked("ひらがな") == ["ひら", "らが", "がな"]
    assert asked("한국어") == ["한국", "국어"]
    assert dense("漢字 and カナ") == 4


def test_a_long_question_is_looked_for_by_its_two_ends():
    found = asked("first " + "x " * 100_000 + " ".join(f"w{i}" for i in range(500)) + " last")
    assert found[0] == "first"
    assert found[-1] == "last"
    assert len(found) <= 200


@given(st.text(max_size=60))
def test_every_term_of_a_question_is_letters_and_digits_and_in_the_index_of_the_same_text(text):
    terms = asked(text)
    assert all(not set(term) & set('"*():^-+{}') and " " not in term for term in terms)
    assert set(terms) <= set(indexed(text).split(" "))
