"""What an arena must survive, fault by fault, and the tests that hold it to it. A fault without one fails here."""

import pytest
from tests.contracts.named_tests import assert_there

SITE = "unit/arena/site"
FAULTS = {
    "double votes": [
        f"{SITE}/test_votes.py::test_the_same_vote_again_changes_nothing_and_another_is_refused",
        f"{SITE}/test_votes.py::test_many_votes_at_once_count_once",
        f"{SITE}/test_store.py::test_votes_of_many_threads_lose_and_double_nothing",
        f"{SITE}/test_load.py::test_two_hundred_voters_in_five_minutes_lose_and_double_nothing_and_do_not_wait",
    ],
    "replays": [
        f"{SITE}/test_votes.py::test_the_same_vote_again_changes_nothing_and_another_is_refused",
        f"{SITE}/test_votes.py::test_a_vote_taken_back_leaves_the_board_and_the_battle_takes_no_other",
        f"{SITE}/test_votes.py::test_a_late_vote_and_a_late_undo_are_refused",
    ],
    "votes for another's battle": [f"{SITE}/test_votes.py::test_nobody_votes_on_anothers_battle"],
    "votes before the answers end": [
        f"{SITE}/test_votes.py::test_no_vote_before_both_answers_have_ended",
        f"{SITE}/test_modes.py::test_no_vote_while_a_further_answer_runs_and_none_on_a_turn_that_failed",
    ],
    "names leaking": [
        f"{SITE}/test_blindness.py::test_no_name_and_no_thinking_before_the_vote",
        f"{SITE}/test_blindness.py::test_no_page_moves_before_the_vote_so_that_nobody_sees_who_was_drawn",
        f"{SITE}/test_blindness.py::test_the_vote_on_an_answer_that_names_itself_is_kept_apart",
        f"{SITE}/test_blindness_to_machines.py::test_a_machine_cannot_guess_55_in_a_hundred_sides",
        f"{SITE}/test_blindness_to_machines.py::test_the_machine_sees_what_an_arena_without_pacing_would_give_away",
    ],
    "stored XSS in model output": [
        f"{SITE}/test_safety.py::test_markdown_of_models_is_harmless",
        f"{SITE}/test_safety.py::test_the_pages_hold_no_inline_script_or_style",
        f"{SITE}/test_safety.py::test_every_answer_carries_the_headers_of_safety",
    ],
    "CSRF": [
        f"{SITE}/test_safety.py::test_another_sites_page_cannot_ask_or_vote",
        f"{SITE}/test_safety.py::test_the_cookie_is_out_of_reach_of_scripts_and_other_sites",
    ],
    "database locked": [
        f"{SITE}/test_safety.py::test_a_locked_database_is_a_503_and_the_vote_can_be_cast_again",
        f"{SITE}/test_safety.py::test_a_short_lock_is_waited_for",
    ],
    "kill -9 during a vote": [
        f"{SITE}/test_commands.py::test_kill_during_votes_leaves_each_once_or_not_at_all",
        f"{SITE}/test_load.py::test_twenty_kills_at_random_moments_lose_and_double_no_vote",
    ],
    "a contestant that fails, hangs, sends garbage or 10 MB": [
        f"{SITE}/test_contestants.py::test_a_contestant_that_fails_rests_and_the_battle_does_not_count",
        f"{SITE}/test_contestants.py::test_an_answer_that_never_ends_is_cut_off",
        f"{SITE}/test_contestants.py::test_ten_megabytes_of_anything_void_the_battle_and_are_not_kept",
        f"{SITE}/test_contestants.py::test_the_others_go_on",
    ],
    "floods": [
        f"{SITE}/test_safety.py::test_floods_are_slowed_down_by_session_and_by_address",
        f"{SITE}/test_safety.py::test_too_many_battles_at_once_are_turned_away",
        f"{SITE}/test_safety.py::test_forged_forwarding_headers_are_ignored",
    ],
    "contestants' addresses inside the host": [
        f"{SITE}/test_contestants.py::test_addresses_inside_are_refused_unless_allowed_by_name",
        f"{SITE}/test_admin.py::test_addresses_inside_cannot_be_entered_here",
    ],
    "contestants' keys in a reply, a log or an export": [
        f"{SITE}/test_contestants.py::test_a_key_goes_to_its_contestant_and_nowhere_else",
        f"{SITE}/test_contestants.py::test_a_key_that_an_endpoint_sends_back_reaches_no_page_log_or_export",
        f"{SITE}/test_admin.py::test_a_contestant_entered_here_fights_and_its_key_is_nowhere",
    ],
    "voters' addresses": [f"{SITE}/test_safety.py::test_addresses_and_cookies_are_kept_as_keyed_hashes_only"],
    "what is to be forgotten": [
        f"{SITE}/test_store.py::test_what_is_forgotten_is_gone_and_the_board_stays",
        f"{SITE}/test_store.py::test_forgotten_texts_are_not_left_in_sqlites_files",
    ],
    "malformed files of votes": [
        "unit/arena/test_vote_files.py::test_a_mistake_is_told_with_file_and_line",
        f"{SITE}/test_foreign.py::test_a_wrong_line_is_named_and_leaves_no_database_behind",
        f"{SITE}/test_foreign.py::test_whatever_stops_an_import_nothing_of_it_is_there",
        f"{SITE}/test_store.py::test_a_changed_ledger_is_refused_with_its_line",
    ],
    "malformed requests": [f"{SITE}/test_votes.py::test_malformed_requests_are_refused_kindly"],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_has_its_tests(fault):
    assert_there(FAULTS[fault])
