"""What the engine and the readers of models must survive, and the tests that hold them to it."""

import pytest
from tests.contracts.named_tests import assert_there

MODEL, ENGINE, TWINS, GGUF = "unit/model", "unit/engine", "twins", "unit/test_gguf.py"
FAULTS = {
    "lengths beyond the file": [
        f"{MODEL}/test_weights.py::test_a_header_longer_than_the_file_is_refused_before_it_is_read",
        f"{MODEL}/test_weights.py::test_a_truncated_file_is_damaged",
        f"{MODEL}/test_hostile_folder.py::test_offsets_beyond_the_file_are_refused",
        f"{GGUF}::test_a_file_cut_anywhere_is_refused",
        f"{GGUF}::test_a_text_of_gigabytes_is_not_read",
    ],
    "duplicate keys": [
        f"{MODEL}/test_weights.py::test_a_header_that_names_a_tensor_twice_is_refused",
        f"{GGUF}::test_a_hostile_file_is_refused_at_once",
    ],
    "overlapping offsets": [
        f"{MODEL}/test_hostile_folder.py::test_tensors_that_share_bytes_are_refused",
        f"{GGUF}::test_tensors_that_share_bytes_or_have_absurd_sizes_are_refused",
    ],
    "2^60 dimensions": [
        f"{MODEL}/test_hostile_folder.py::test_an_entry_that_cannot_be_is_refused",
        f"{GGUF}::test_tensors_that_share_bytes_or_have_absurd_sizes_are_refused",
    ],
    "a flipped byte": [f"{GGUF}::test_a_flipped_byte_in_the_header_gives_an_error_or_a_model_never_a_traceback"],
    "a missing shard": [
        f"{MODEL}/test_weights.py::test_a_missing_shard_is_named",
        f"{MODEL}/test_hostile_folder.py::test_an_index_of_a_hundred_thousand_missing_shards_names_the_first",
    ],
    "shapes that do not fit the config": [
        f"{MODEL}/test_weights.py::test_shapes_that_do_not_fit_are_named_with_both_shapes"
    ],
    "links, pipes, files that fill the memory": [
        f"{MODEL}/test_linked_folder.py::test_a_file_that_is_a_link_out_of_its_folder_is_refused_and_not_read",
        f"{MODEL}/test_hostile_folder.py::test_a_pipe_in_place_of_a_file_is_not_waited_for",
        f"{MODEL}/test_hostile_folder.py::test_a_file_that_would_fill_the_memory_is_not_read",
    ],
    "prompts longer than the context, empty prompts, ids out of range": [
        f"{TWINS}/test_engine.py::test_a_prompt_that_cannot_be_continued_is_refused",
        f"{TWINS}/test_sampling.py::test_ids_outside_the_vocabulary_are_refused",
        f"{ENGINE}/test_scheduler.py::test_what_could_never_run_is_refused",
    ],
    "a NaN in the logits, named by layer": [
        f"{TWINS}/test_engine.py::test_a_request_with_nan_ends_with_the_layer_named_and_the_others_go_on",
        f"{TWINS}/test_engine.py::test_generate_names_the_layer_that_broke",
    ],
    "a step that fails": [
        f"{TWINS}/test_engine.py::test_an_exception_ends_all_requests_and_new_ones_are_served",
        f"{TWINS}/test_engine_loop.py::test_a_failing_step_reaches_its_readers_and_no_later_one",
    ],
    "invalid or explosive schemas and regexes": [
        f"{ENGINE}/test_structured.py::test_a_hostile_or_broken_structure_is_a_message_within_a_second",
        f"{ENGINE}/test_structured.py::test_a_regex_bomb_costs_little_or_is_refused",
        f"{TWINS}/test_structured_output.py::test_a_bad_structure_is_refused_and_the_engine_goes_on",
    ],
    "hostile chat templates": [
        "unit/text/test_template.py::test_a_hostile_template_is_stopped",
        "unit/server/test_faults.py::test_a_hostile_template_ends_its_own_request_only",
    ],
    "random requests with random aborts": [
        f"{ENGINE}/test_scheduler.py::test_ten_thousand_requests_and_random_aborts_leak_no_block_and_change_no_token",
    ],
    "settings outside their range": [
        f"{ENGINE}/test_sampling.py::test_a_bad_value_is_refused_by_the_name_of_its_setting",
        f"{TWINS}/test_engine.py::test_settings_outside_their_range_are_refused",
    ],
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_has_its_tests(fault):
    assert_there(FAULTS[fault])
