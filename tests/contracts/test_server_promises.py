"""What a server must survive and what clients need of it, line by line, and the tests that hold it to it."""

import pytest
from tests.contracts.named_tests import assert_there

UNIT, ENGINE, TEXT, MODEL = "unit/server", "unit/engine", "unit/text", "unit/model"
FAULTS = {
    "clients that leave mid-stream": [
        f"{UNIT}/test_process.py::test_clients_that_leave_mid_stream_leave_nothing_behind",
        "twins/test_engine_loop.py::test_a_reader_who_leaves_frees_his_blocks",
    ],
    "slow readers": [f"{UNIT}/test_faults.py::test_a_slow_reader_holds_up_nobody"],
    "a hundred clients": [
        f"{UNIT}/test_app.py::test_a_hundred_clients_get_what_one_gets",
        f"{UNIT}/test_load.py::test_health_answers_within_100_ms_while_long_prompts_are_refused_and_64_streams_run",
    ],
    "prompts past the context": [
        f"{UNIT}/test_app.py::test_bad_requests_are_told_what_is_wrong",
        f"{UNIT}/test_documents.py::test_a_text_past_the_context_is_refused_as_without_documents",
    ],
    "100 MB bodies": [f"{UNIT}/test_faults.py::test_a_body_of_a_hundred_megabytes_is_refused_after_the_first_eight"],
    "invalid UTF-8": [f"{UNIT}/test_faults.py::test_what_is_no_request_is_refused_on_every_route"],
    "absurd numbers": [f"{UNIT}/test_faults.py::test_absurd_values_are_refused_by_name"],
    "stop strings across chunks": [
        f"{UNIT}/test_faults.py::test_a_stop_string_never_shows_however_it_is_cut",
        f"{ENGINE}/test_stops.py::test_a_stream_shows_what_the_whole_text_is",
    ],
    "deep JSON": [f"{UNIT}/test_faults.py::test_what_is_no_request_is_refused_on_every_route"],
    "schema and regex bombs": [
        f"{UNIT}/test_faults.py::test_a_schema_that_is_a_bomb_is_refused_or_bounded",
        f"{ENGINE}/test_structured.py::test_a_regex_bomb_costs_little_or_is_refused",
        f"{ENGINE}/test_structured.py::test_what_takes_too_long_is_given_up",
    ],
    "special tokens that users type": [
        f"{UNIT}/test_faults.py::test_control_strings_that_users_type_are_never_control_ids",
        f"{UNIT}/test_tools.py::test_a_template_with_tools_gets_them_and_no_control_ids_from_users",
        f"{UNIT}/test_documents.py::test_documents_cannot_speak_for_the_user_or_as_control_tokens",
        f"{UNIT}/test_answers.py::test_the_final_message_is_gone_on_with",
    ],
    "checkpoints that are pickles": [
        f"{UNIT}/test_faults.py::test_a_hostile_checkpoint_is_refused_before_anybody_is_served",
        f"{MODEL}/test_weights.py::test_a_pickle_is_refused_with_the_reason_and_never_opened",
    ],
    "auto_map": [f"{UNIT}/test_faults.py::test_code_that_a_checkpoint_brings_is_never_run"],
    "template attacks": [
        f"{UNIT}/test_faults.py::test_a_hostile_template_ends_its_own_request_only",
        f"{TEXT}/test_template.py::test_a_hostile_template_is_stopped",
    ],
    "symlinks": [
        f"{MODEL}/test_linked_folder.py::test_a_file_that_is_a_link_out_of_its_folder_is_refused_and_not_read",
        f"{MODEL}/test_linked_folder.py::test_a_repository_of_the_cache_reaches_no_other",
        f"{UNIT}/documents/test_passages.py::test_a_link_out_of_the_folder_is_refused",
    ],
    "path traversal": [
        f"{UNIT}/test_faults.py::test_a_hostile_checkpoint_is_refused_before_anybody_is_served",
        f"{MODEL}/test_weights.py::test_a_shard_outside_the_folder_is_refused",
        f"{UNIT}/test_page.py::test_no_file_beside_the_page_is_served",
    ],
    "a cache that is full": [
        f"{UNIT}/test_faults.py::test_a_small_cache_makes_completions_wait_and_never_wrong",
        f"{ENGINE}/test_scheduler.py::test_the_oldest_go_on_when_blocks_run_out",
    ],
    "SIGTERM": [
        f"{UNIT}/test_process.py::test_sigterm_lets_streams_end_refuses_new_requests_and_exits_with_0"
    ],
    "an engine that crashes": [
        f"{UNIT}/test_models.py::test_a_crashed_engine_ends_its_requests_and_is_restarted_once",
        f"{UNIT}/test_models.py::test_the_crash_of_one_model_leaves_others_running",
    ],
}  # fmt: skip
CLIENTS = {
    "unmodified clients": [
        "clients/test_clients.py::test_an_unmodified_client_works",
        "clients/test_clients.py::test_an_unmodified_client_of_npm_works",
    ],
    "lm-eval: /tokenizer_info and /tokenize at the root": [
        f"{UNIT}/test_answers.py::test_tokenizer_info_and_tokenize_tell_what_lm_eval_asks_for",
        f"{UNIT}/test_app.py::test_tokens_there_and_back",
    ],
    "lm-eval: echo with the prompt's own log-probabilities": [
        f"{UNIT}/test_app.py::test_echoed_logprobs_are_exact",
        "twins/test_sampling.py::test_a_scored_text_and_a_sampled_one_have_the_same_bits",
    ],
    "the likeliest token's value is bit-equal to the token's own": [
        f"{ENGINE}/test_logits.py::test_the_chosen_tokens_logprob_is_bit_equal_to_the_likeliest_one",
    ],
    "content is never null": [f"{UNIT}/test_answers.py::test_every_switch_of_the_thinking_works"],
    "reasoning_content and reasoning, both ways": [
        f"{UNIT}/test_answers.py::test_every_switch_of_the_thinking_works",
        f"{UNIT}/test_answers.py::test_thinking_is_understood_in_messages_under_both_names",
    ],
    "settings of a request": [
        f"{UNIT}/test_requests.py::test_settings_are_the_engine_s",
        f"{UNIT}/test_requests.py::test_what_cannot_be_is_refused_with_its_name",
        "twins/test_sampling.py::test_penalties_and_biases_are_those_of_a_plain_loop",
        "twins/test_sampling.py::test_no_end_comes_before_min_tokens",
    ],
    "continue_final_message": [
        f"{UNIT}/test_answers.py::test_the_final_message_is_gone_on_with",
        f"{UNIT}/test_answers.py::test_thinking_without_an_answer_is_gone_on_with_as_thinking",
        f"{UNIT}/test_answers.py::test_only_an_assistant_s_text_can_be_gone_on_with",
    ],
    "a chat template in a request is refused": [f"{UNIT}/test_faults.py::test_absurd_values_are_refused_by_name"],
    "unknown fields are ignored and logged once": [
        f"{UNIT}/test_answers.py::test_unknown_fields_are_ignored_and_logged_once"
    ],
    "tools and tool_choice": [
        f"{UNIT}/test_tools.py::test_a_forced_call_follows_its_schema_whole_and_streamed",
        f"{UNIT}/test_tools.py::test_wrong_tools_are_told",
    ],
    "response_format": [
        f"{UNIT}/test_responses.py::test_a_schema_is_followed",
        "twins/test_structured_output.py::test_random_weights_write_what_the_schema_wants",
    ],
    "usage with cached and thinking tokens": [
        f"{UNIT}/test_answers.py::test_usage_tells_cached_and_thinking_tokens"
    ],
    "timings": [f"{UNIT}/test_answers.py::test_timings_are_llama_cpp_s_and_come_with_the_end"],
    "the chunks of a stream": [
        f"{UNIT}/test_app.py::test_a_stream_adds_up_to_the_whole_answer",
        f"{UNIT}/test_streams.py::test_a_chunk_of_usage_comes_only_where_it_was_asked_for_and_has_no_choices",
    ],
    "halves of characters and of stop strings are held back": [
        f"{ENGINE}/test_stops.py::test_half_a_character_waits_for_its_rest",
        f"{ENGINE}/test_stops.py::test_what_may_become_a_stop_string_waits",
    ],
    "an error after the headers": [
        f"{UNIT}/test_streams.py::test_an_error_after_the_headers_is_an_event_and_the_end"
    ],
    "a ping while a stream waits": [
        f"{UNIT}/test_streams.py::test_a_stream_that_waits_is_pinged_and_says_the_same_as_one_that_does_not",
    ],
    "headers of streams": [f"{UNIT}/test_streams.py::test_headers_keep_proxies_from_holding_a_stream_back"],
    "a closed connection frees its blocks and keeps the prefix": [
        f"{UNIT}/test_process.py::test_clients_that_leave_mid_stream_leave_nothing_behind",
        f"{UNIT}/test_streams.py::test_the_prompt_of_a_client_that_left_is_still_cached",
    ],
    "400, 404, 405, 413": [
        f"{UNIT}/test_app.py::test_bad_requests_are_told_what_is_wrong",
        f"{UNIT}/test_app.py::test_a_body_without_end_is_refused",
    ],
    "401; a key guards every route but the open ones": [
        f"{UNIT}/test_gate.py::test_every_route_but_health_and_the_page_wants_a_key",
        f"{UNIT}/test_gate.py::test_every_key_is_compared_whole_whichever_is_given",
    ],
    "429 with Retry-After": [f"{UNIT}/test_app.py::test_a_full_queue_says_when_to_come_back"],
    "503 with Retry-After": [
        f"{UNIT}/test_models.py::test_loading_is_reported_and_clients_are_told_to_come_again",
        f"{UNIT}/test_process.py::test_sigterm_lets_streams_end_refuses_new_requests_and_exits_with_0",
    ],
    "never a library's text": [
        f"{UNIT}/test_faults.py::test_what_is_no_request_is_refused_on_every_route",
        f"{UNIT}/test_models.py::test_a_crashed_engine_ends_its_requests_and_is_restarted_once",
        f"{UNIT}/test_models.py::test_a_model_that_cannot_be_loaded_fails_alone_and_its_path_stays_here",
    ],
    "NaN and −∞ never reach JSON": [
        f"{UNIT}/test_answers.py::test_what_json_cannot_say_never_gets_into_it",
        f"{UNIT}/test_models.py::test_a_number_that_is_none_ends_its_request_and_is_no_crash",
    ],
    "metrics": [
        f"{UNIT}/test_metrics.py::test_what_was_asked_is_counted",
        f"{UNIT}/test_metrics.py::test_the_dashboard_asks_for_what_there_is",
        "contracts/test_operating_docs.py::test_the_page_has_every_option_and_every_metric",
    ],
    "structured output is compiled apart, within a time": [
        f"{ENGINE}/test_structured.py::test_what_takes_too_much_processor_time_is_given_up_in_the_rehearsal",
        f"{ENGINE}/test_structured.py::test_a_hostile_or_broken_structure_is_a_message_within_a_second",
        "twins/test_structured_output.py::test_a_grammar_that_goes_no_further_ends_its_own_request_alone",
    ],
    "headers of weights are checked before they are opened": [
        f"{MODEL}/test_weights.py::test_a_header_that_names_a_tensor_twice_is_refused",
        f"{MODEL}/test_hostile_folder.py::test_an_entry_that_cannot_be_is_refused",
    ],
    "the OpenAPI document": [f"{UNIT}/test_openapi.py::test_every_path_of_the_document_answers_as_it_says"],
    "keys take turns": [
        f"{UNIT}/test_turns.py::test_keys_with_many_requests_get_the_same_share",
        f"{UNIT}/test_turns.py::test_the_requests_of_a_flooding_key_do_not_starve_another",
    ],
}  # fmt: skip


@pytest.mark.parametrize("line", [*FAULTS, *CLIENTS])
def test_every_line_has_its_tests(line):
    assert_there((FAULTS | CLIENTS)[line])
