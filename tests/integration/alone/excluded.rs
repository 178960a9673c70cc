//! The tests that contradict a start method, or a pool without processes, by what they are about.

/// The tests that contradict the start method Fork by what they are about, and why.
pub(super) const NOT_UNDER_FORK: &[(&str, &str)] = &[
    (
        "subscriber::spans_of_a_process_end_with_it",
        "a copy of this process has its subscriber, which is set before, and gives its spans to that",
    ),
    (
        "pool::a_pool_outlives_the_thread_that_made_it",
        "the pool is built by a second thread, and only a process with one can be copied",
    ),
    (
        "pool::threads_that_make_their_first_parallel_call_at_once_share_one_pool",
        "the pool is built by one of many threads, and only a process with one can be copied",
    ),
    (
        "forged::a_flood_of_records_does_not_starve_other_workers",
        "a copy of this process has its logger, which is set before, and gives its records to that",
    ),
    (
        "surroundings::a_directory_that_was_renamed_is_kept_by_the_workers_that_begin_in_it",
        "the template is a copy that is in the directory already, and stays in it wherever it is moved",
    ),
    (
        "surroundings::no_worker_begins_in_another_directory_of_the_same_name",
        "the template is a copy that is in the directory already, and stays in it wherever it is moved",
    ),
    (
        "callbacks::",
        "the callbacks build pools on threads of ours, and only a process with one thread can be copied",
    ),
    (
        "forking_callback::a_pool_that_is_joined_or_dropped_ends_though_a_logger_forks",
        "a copy of this process has its logger, which is set before, and gives its records to that",
    ),
    (
        "forking_callback::a_process_is_its_parents_though_a_logger_or_a_waker_forks",
        "a copy of this process has its logger, which is set before, and gives its records to that",
    ),
];

/// The tests, or modules of them, that need processes by what they are about, and why they cannot hold under `PROCESSION_IN_PROCESS=1`.
pub(super) const NOT_IN_PROCESS: &[(&str, &str)] = &[
    ("blame::", "a crash would be the test's own"),
    ("callbacks::", "a task that runs in the calling thread needs no callbacks"),
    ("cancel::", "a task that runs in the calling thread cannot be cancelled"),
    ("crash::", "a crash would be the test's own"),
    ("debugging::", "no worker waits"),
    ("escape::", "no text comes from a worker"),
    ("fair::", "only the calling thread works"),
    ("hostile::", "what harms a worker would harm the test"),
    ("foreign_fork::", "there are no workers to harm"),
    ("forking_callback::", "no records or results come from another process"),
    ("forking_task::", "a copy of the calling process is the caller's own"),
    ("idle::", "there are no workers that could exit"),
    (
        "shared::manager::a_manager_within_a_process_serves_its_threads_and_no_other_process",
        "there is no other process",
    ),
    ("shared::manager::operations_of_a_manager_that_has_died_say_why", "a crash would be the test's own"),
    ("shared::manager::what_a_process_held_is_free_when_it_was_killed", "a crash would be the test's own"),
    (
        "shared::automatic::large_bytes_and_long_text_are_shared_when_they_are_given_again",
        "nothing is kept for workers",
    ),
    (
        "shared::automatic::the_same_elements_are_shared_once_and_changed_ones_anew",
        "nothing is kept for workers",
    ),
    (
        "shared::automatic::a_worker_that_takes_the_place_of_another_is_handed_a_large_argument",
        "a crash would be the test's own",
    ),
    (
        "shared::files::a_worker_that_takes_the_place_of_another_maps_the_file",
        "a crash would be the test's own",
    ),
    (
        "shared::slices::a_worker_that_takes_the_place_of_another_is_handed_what_it_needs",
        "a crash would be the test's own",
    ),
    (
        "shared::descriptors::a_descriptor_is_given_to_a_worker_that_takes_the_place_of_another",
        "a crash would be the test's own",
    ),
    ("shared::deaths::", "a crash would be the test's own"),
    ("shared::steps::", "a crash would be the test's own"),
    (
        "shared::locks::tasks_wait_for_each_other_at_a_barrier_and_for_a_condition",
        "a task runs where it is submitted",
    ),
    ("shared::locks::workers_that_end_in_peace_break_nothing", "a task runs where it is submitted"),
    (
        "shared::moved::a_slice_that_was_frozen_by_a_worker_that_died_is_lost",
        "a crash would be the test's own",
    ),
    (
        "shared::moved::a_slice_that_was_moved_to_a_worker_that_died_is_moved_to_the_next",
        "a crash would be the test's own",
    ),
    ("shared::moved::a_worker_unmaps_what_it_has_made_and_returned", "the worker is this process"),
    ("shared::results::segments_of_results_that_nobody_takes_are_dropped", "a crash would be the test's own"),
    ("shared::slices::a_slice_lives_as_long_as_a_worker_uses_it", "a task runs where it is submitted"),
    (
        "shared::channels::an_end_that_waits_in_the_queue_of_a_pool_counts",
        "a task runs where it is submitted",
    ),
    ("shared::channels::workers_share_what_the_caller_sends", "a task runs where it is submitted"),
    (
        "shared::channels::the_end_of_a_process_that_was_killed_is_gone_at_once",
        "the promise is about processes",
    ),
    (
        "shared::messages::a_message_for_which_its_receiver_has_no_descriptor_stays_and_the_error_names_the_limit",
        "the limit would be the test's own",
    ),
    (
        "shared::channels::a_message_is_received_by_another_process_if_its_receiver_dies_over_it",
        "a crash would be the test's own",
    ),
    (
        "shared::channels::a_receiver_that_dies_between_messages_has_received_them_for_good",
        "a crash would be the test's own",
    ),
    ("shared::awaiting::messages_are_awaited_on_pollster", "a task runs where it is submitted"),
    ("shared::awaiting::messages_are_awaited_on_smol", "a task runs where it is submitted"),
    ("shared::awaiting::messages_are_awaited_on_tokio", "a task runs where it is submitted"),
    (
        "shared::awaiting::each_message_is_received_once_by_tasks_threads_and_processes",
        "a task runs where it is submitted",
    ),
    ("shared::awaiting::a_process_that_is_killed_wakes_all_that_await_it", "the promise is about processes"),
    ("shared::lent::", "tasks run while the caller goes on, or end their process"),
    (
        "shared::channels::what_was_sent_outlives_its_sender_with_the_ends_in_it",
        "a crash would be the test's own",
    ),
    ("leaks::", "it counts what workers hold"),
    ("memory::", "the limit would be the test's own"),
    ("nested::", "there is no worker within which calls could be nested"),
    ("output::", "what it writes is the calling process's own"),
    ("process::", "the promises are about processes"),
    ("recycle::", "there is no worker to replace"),
    ("rest::", "there are no workers that could be idle"),
    ("forged::", "nothing is sent"),
    ("scribble::", "nothing is shared"),
    (
        "settings::draw::a_task_that_is_started_again_draws_the_same",
        "several workers, or the end of one, are part of it",
    ),
    (
        "settings::a_timeout_of_a_call_ends_its_own_tasks_only",
        "several workers, or the end of one, are part of it",
    ),
    (
        "settings::draw::all_threads_of_a_task_draw_the_same_and_no_other_task_does",
        "several workers, or the end of one, are part of it",
    ),
    (
        "settings::draw::each_call_of_a_task_draws_other_numbers_regardless_of_its_workers_past",
        "a task's calls are numbered by its worker",
    ),
    (
        "settings::jobs_are_the_cpus_that_affinity_allows",
        "several workers, or the end of one, are part of it",
    ),
    ("settings::jobs_bounds_the_workers_of_a_call", "several workers, or the end of one, are part of it"),
    (
        "settings::retries_of_a_call_go_before_those_of_its_pool",
        "several workers, or the end of one, are part of it",
    ),
    (
        "settings::stop_is_the_first_failure_and_collect_is_all_of_them",
        "several workers, or the end of one, are part of it",
    ),
    (
        "settings::the_members_of_a_tuple_may_fail_one_by_one",
        "several workers, or the end of one, are part of it",
    ),
    (
        "settings::unordered_results_come_as_they_are_ready_and_each_comes_once",
        "several workers, or the end of one, are part of it",
    ),
    ("given_up::", "no process starts"),
    ("start::", "no process starts"),
    ("stats::", "the counts are about processes"),
    ("surroundings::", "the environment is the calling process's own"),
    ("timeout::", "a task that runs in the calling thread cannot be stopped"),
    (
        "async_worker::a_call_within_an_async_function_runs_there_beside_the_runtime",
        "the calling thread keeps its runtime, or a crash would be the test's own",
    ),
    (
        "async_worker::a_worker_has_one_runtime_made_at_first_use",
        "the calling thread keeps its runtime, or a crash would be the test's own",
    ),
    (
        "async_worker::an_async_function_runs_to_its_end_in_a_worker",
        "the calling thread keeps its runtime, or a crash would be the test's own",
    ),
    (
        "async_worker::panics_and_crashes_of_async_functions_are_reported_like_any_others",
        "the calling thread keeps its runtime, or a crash would be the test's own",
    ),
    (
        "async_worker::the_processes_own_pool_runs_async_functions",
        "the calling thread keeps its runtime, or a crash would be the test's own",
    ),
    (
        "async_worker::futures_that_an_async_function_spawned_continue_during_the_next",
        "the calling thread keeps its runtime, or a crash would be the test's own",
    ),
    (
        "awaiting::a_failed_task_is_an_item_of_a_stream_which_goes_on",
        "a task that runs in the calling thread has ended when `submit` returns",
    ),
    (
        "awaiting::a_future_gives_way_to_a_timeout_and_is_awaited_again",
        "a task that runs in the calling thread has ended when `submit` returns",
    ),
    (
        "awaiting::a_future_that_is_dropped_in_the_middle_cancels_nothing_and_keeps_nothing",
        "a task that runs in the calling thread has ended when `submit` returns",
    ),
    (
        "awaiting::a_stream_reads_its_input_lazily_and_no_further_than_its_window",
        "a task that runs in the calling thread has ended when `submit` returns",
    ),
    (
        "awaiting::a_stream_that_is_dropped_ends_its_call",
        "a task that runs in the calling thread has ended when `submit` returns",
    ),
    (
        "awaiting::one_handle_is_awaited_asked_and_joined_in_turn",
        "a task that runs in the calling thread has ended when `submit` returns",
    ),
    (
        "awaiting::only_the_last_waker_is_woken_and_only_once",
        "a task that runs in the calling thread has ended when `submit` returns",
    ),
    (
        "awaiting::results_are_awaited_on_pollster",
        "a task that runs in the calling thread has ended when `submit` returns",
    ),
    (
        "awaiting::results_are_awaited_on_smol",
        "a task that runs in the calling thread has ended when `submit` returns",
    ),
    (
        "awaiting::results_are_awaited_on_tokios_current_thread_runtime",
        "a task that runs in the calling thread has ended when `submit` returns",
    ),
    (
        "awaiting::results_are_awaited_on_tokios_multi_thread_runtime",
        "a task that runs in the calling thread has ended when `submit` returns",
    ),
    (
        "codec::a_value_that_refuses_fails_its_task_alone_wherever_it_refuses",
        "it asks which process ran what",
    ),
    ("codec::faults_amid_a_batch_leave_the_others_in_step", "it asks which process ran what"),
    ("logs::a_record_arrives_whole_and_before_the_result", "records of the calling process have no worker"),
    ("logs::records_made_before_a_panic_or_a_crash_arrive", "records of the calling process have no worker"),
    (
        "logs::records_of_a_call_arrive_once_and_before_their_results",
        "records of the calling process have no worker",
    ),
    (
        "logs::records_of_several_threads_of_a_task_neither_mix_nor_vanish",
        "records of the calling process have no worker",
    ),
    (
        "logs::the_parents_logger_gets_no_record_that_it_has_disabled",
        "records of the calling process have no worker",
    ),
    ("order::a_result_that_is_not_taken_holds_the_input_back", "it needs several workers that work at once"),
    ("order::a_slow_producers_tasks_are_not_held_back", "it needs several workers that work at once"),
    (
        "order::a_slow_producers_tasks_are_not_held_back_to_fill_a_chunk",
        "it needs several workers that work at once",
    ),
    (
        "order::imap_unordered_gives_each_result_once_and_the_quick_before_the_slow",
        "it needs several workers that work at once",
    ),
    ("panic::a_backtrace_is_captured_if_and_only_if_it_is_requested", "there is no worker to be told of"),
    (
        "panic::a_function_with_a_hook_of_its_own_still_panics_for_its_caller",
        "there is no worker to be told of",
    ),
    ("panic::a_process_has_a_backtrace_if_it_is_requested", "there is no worker to be told of"),
    ("panic::a_panic_can_be_raised_again_in_the_caller", "there is no worker to be told of"),
    ("panic::a_panic_is_reported_with_its_message_and_place", "there is no worker to be told of"),
    (
        "panic::a_panic_that_cannot_unwind_is_reported_although_it_ends_the_process",
        "there is no worker to be told of",
    ),
    ("panic::an_abort_after_a_panic_that_was_caught_is_a_crash", "there is no worker to be told of"),
    ("panic::odd_panics_are_panics_like_any_other", "there is no worker to be told of"),
    ("panic::the_panic_that_ends_the_task_is_the_one_that_is_reported", "there is no worker to be told of"),
    ("pitfalls::a_lock_that_another_thread_holds_is_free_in_workers", "it is about processes"),
    ("pitfalls::each_pool_has_a_start_method_of_its_own", "it is about processes"),
    ("pitfalls::fork_with_a_second_thread_is_an_error_and_no_deadlock", "it is about processes"),
    ("pitfalls::submitted_tasks_run_even_if_they_are_never_joined", "it is about processes"),
    (
        "pool::broadcast::a_broadcast_whose_argument_does_not_encode_is_an_error_and_starts_nothing",
        "it is about workers that start, end, or work at once",
    ),
    (
        "pool::handle::a_handle_becomes_finished_even_if_no_thread_waits",
        "it is about workers that start, end, or work at once",
    ),
    ("pool::a_lazy_iterator_may_outlive_its_pool", "it is about workers that start, end, or work at once"),
    (
        "pool::a_folder_that_goes_missing_is_an_error_that_names_it",
        "it is about workers that start, end, or work at once",
    ),
    (
        "pool::a_pool_has_the_requested_number_of_workers",
        "it is about workers that start, end, or work at once",
    ),
    (
        "pool::a_pool_of_two_hundred_workers_starts_one_for_one_task_and_no_more_than_there_is_work_for",
        "it is about workers that start, end, or work at once",
    ),
    ("pool::a_pool_outlives_the_thread_that_made_it", "it is about workers that start, end, or work at once"),
    ("pool::a_pools_name_shows_in_its_errors", "it is about workers that start, end, or work at once"),
    (
        "pool::initialize::an_initializer_runs_once_in_each_worker_and_in_each_that_replaces_one",
        "it is about workers that start, end, or work at once",
    ),
    (
        "pool::initialize::an_initializer_that_crashes_now_and_then_stops_nothing",
        "it is about workers that start, end, or work at once",
    ),
    (
        "pool::initialize::an_initializer_that_ends_the_process_stops_the_pool_with_the_cause",
        "it is about workers that start, end, or work at once",
    ),
    (
        "pool::initialize::an_initializer_that_is_killed_stops_the_pool_with_the_cause",
        "it is about workers that start, end, or work at once",
    ),
    (
        "pool::initialize::an_initializer_that_panics_stops_the_pool_with_its_own_message",
        "it is about workers that start, end, or work at once",
    ),
    (
        "pool::initialize::a_pool_that_was_given_up_tries_again_once_its_failures_are_long_enough_ago",
        "it is about workers that start, end, or work at once",
    ),
    (
        "pool::initialize::a_pool_is_not_given_up_while_a_worker_initializes",
        "it is about workers that start, end, or work at once",
    ),
    (
        "pool::initialize::a_pool_that_was_given_up_serves_as_soon_as_a_worker_does",
        "it is about workers that start, end, or work at once",
    ),
    (
        "pool::broadcast::a_broadcast_that_needs_a_worker_that_cannot_start_fails_while_another_serves",
        "it is about workers that start, end, or work at once",
    ),
    (
        "pool::initialize::workers_that_are_killed_as_they_start_a_few_times_in_a_row_end_no_pool",
        "it is about workers that start, end, or work at once",
    ),
    (
        "pool::broadcast::broadcast_fails_with_the_task_that_fails",
        "it is about workers that start, end, or work at once",
    ),
    (
        "pool::broadcast::broadcast_reaches_workers_that_are_busy_or_dead",
        "it is about workers that start, end, or work at once",
    ),
    (
        "pool::handle::handles_are_futures_that_complete_on_any_executor",
        "it is about workers that start, end, or work at once",
    ),
    (
        "pool::handle::handles_of_a_pool_that_has_ended_are_errors",
        "it is about workers that start, end, or work at once",
    ),
    (
        "pool::handle::join_timeout_may_be_called_again_after_it_has_expired",
        "it is about workers that start, end, or work at once",
    ),
    ("pool::several_pools_live_side_by_side", "it is about workers that start, end, or work at once"),
    (
        "pool::the_environment_sets_the_number_of_workers",
        "it is about workers that start, end, or work at once",
    ),
    ("pool::the_warm_pool_grows_and_shrinks_to_jobs", "it is about workers that start, end, or work at once"),
    (
        "pool::two_hundred_workers_on_few_cores_make_progress",
        "it is about workers that start, end, or work at once",
    ),
    (
        "pool::every_waiting_thread_learns_of_the_pools_end",
        "it is about workers that start, end, or work at once",
    ),
    (
        "pool::workers_have_the_environment_that_they_were_given",
        "it is about workers that start, end, or work at once",
    ),
    (
        "pool::workers_work_in_the_folder_that_they_were_given",
        "it is about workers that start, end, or work at once",
    ),
    (
        "subscriber::an_event_arrives_once_with_typed_fields_and_its_place_before_the_result",
        "what the calling process says has no worker",
    ),
    (
        "subscriber::events_are_children_of_the_span_in_which_the_task_was_submitted",
        "what the calling process says has no worker",
    ),
    (
        "subscriber::a_subscriber_that_panics_as_spans_are_left_and_closed_keeps_no_result_of_a_pool",
        "a panic of the subscriber and a crash would be the test's own",
    ),
    (
        "subscriber::a_subscriber_that_panics_as_spans_are_left_and_closed_keeps_no_result_of_a_process",
        "a panic of the subscriber and a crash would be the test's own",
    ),
    ("subscriber::events_of_a_future_arrive_within_its_span", "what the calling process says has no worker"),
    ("subscriber::spans_of_a_process_end_with_it", "what the calling process says has no worker"),
    (
        "subscriber::events_before_a_panic_or_a_crash_arrive_and_spans_end_with_the_process",
        "what the calling process says has no worker",
    ),
];
