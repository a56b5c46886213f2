//! The APIs over the real control plane, issuer and store: requests in, answers out, by REST and by gRPC.
//!
//! One process, one story: it forks the keeper while it has one thread. No user code runs: the image that services are made
//! of here has a command that does not exist, so that what becomes of a deploy is known.

#[path = "real/access.rs"]
mod access;
#[path = "real/accounts.rs"]
mod accounts;
#[path = "real/audit.rs"]
mod audit;
#[path = "real/conditions.rs"]
mod conditions;
#[path = "real/http.rs"]
mod http;
#[path = "real/lists.rs"]
mod lists;
#[path = "real/logging.rs"]
mod logging;
#[path = "real/metadata.rs"]
mod metadata;
#[path = "real/oauth.rs"]
mod oauth;
#[path = "real/policies.rs"]
mod policies;
#[path = "real/pubsub.rs"]
mod pubsub;
#[path = "real/resumable.rs"]
mod resumable;
#[path = "real/run_v1.rs"]
mod run_v1;
#[path = "real/run_v2.rs"]
mod run_v2;
#[path = "real/scheduler.rs"]
mod scheduler;
#[path = "real/secrets.rs"]
mod secrets;
#[path = "real/shapes.rs"]
mod shapes;
#[path = "real/storage.rs"]
mod storage;
#[path = "real/storage_limits.rs"]
mod storage_limits;
#[path = "real/storage_xml.rs"]
mod storage_xml;
#[path = "real/world.rs"]
mod world;

use std::sync::Arc;

use world::World;

fn main() {
    let dir = tempfile::Builder::new().prefix("tanebi-api-").tempdir().expect("a folder for the state");
    let keeper = world::keeper(dir.path());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let failed = runtime.block_on(async {
        let world = Arc::new(World::new(dir.path(), Arc::new(keeper)).await);
        let mut failed = 0;
        macro_rules! run {
            ($($module:ident::$test:ident),* $(,)?) => {$({
                let world = world.clone();
                let result = tokio::spawn(async move { $module::$test(&world).await }).await;
                println!("test {}::{} ... {}", stringify!($module), stringify!($test), if result.is_ok() { "ok" } else { "FAILED" });
                failed += usize::from(result.is_err());
            })*};
        }
        run!(
            access::no_method_answers_without_credentials,
            access::no_method_answers_a_stranger,
            access::a_project_that_does_not_exist_looks_like_one_that_is_not_yours,
            access::a_project_that_does_not_exist_is_refused_wherever_it_is_named,
            access::a_viewer_reads_and_does_not_write,
            access::grpc_calls_need_the_same,
            shapes::what_is_not_served_is_not_found,
            shapes::bad_requests_are_named,
            shapes::the_answer_is_as_asked_for,
            shapes::everything_answers_on_one_host,
            run_v2::a_service_lives_and_dies,
            run_v2::masks_and_etags_guard_an_update,
            run_v2::grpc_and_rest_are_one,
            run_v2::a_build_without_its_source_is_refused,
            run_v1::a_deploy_ends_in_conditions_that_say_why,
            run_v1::a_writer_who_has_not_read_is_told,
            run_v1::defaults_are_shown_and_written_back,
            run_v1::a_dry_run_leaves_nothing,
            run_v1::a_dry_run_comes_before_the_build,
            run_v1::operations_are_waited_for,
            run_v1::views_of_a_service_agree,
            policies::a_policy_is_set_and_read_in_every_shape,
            policies::permissions_are_tested,
            lists::pages_follow_each_other,
            lists::regions_projects_apis_and_repositories_are_listed,
            audit::calls_that_change_something_are_written_down,
            audit::a_call_that_its_caller_left_is_written_down,
            audit::the_callers_address_is_written_down,
            secrets::a_secret_lives_and_dies,
            secrets::masks_say_what_of_a_secret_changes,
            secrets::lists_are_paged_and_filtered,
            secrets::a_policy_of_a_secret_lets_one_in,
            storage::a_source_deploy_uploads_its_archive,
            storage::bytes_are_read_whole_and_in_part,
            storage::links_begin_as_the_request_came,
            storage::preconditions_are_kept,
            storage::claimed_hashes_must_be_right,
            storage::objects_are_listed,
            storage::a_bucket_goes_with_all_that_is_in_it,
            storage::metadata_changes_and_bytes_stay,
            storage::objects_are_made_of_objects,
            storage::an_object_is_moved,
            storage::a_bucket_is_changed_and_goes,
            storage::who_may_read_and_write,
            storage::a_packed_object_is_unpacked_for_who_cannot,
            storage::versions_and_what_was_deleted_are_there,
            storage::what_is_held_stays,
            storage::a_rewrite_to_another_class_takes_steps,
            storage::a_topic_is_told_of_what_happens,
            storage::a_policy_of_a_deleted_bucket_is_not_the_next_ones,
            storage_limits::every_default,
            storage_limits::every_limit_of_a_bucket,
            storage_limits::every_limit_of_an_object,
            storage_limits::every_limit_of_an_upload,
            storage_limits::a_signed_url_lives_seven_days_at_most,
            storage_xml::a_signed_url_is_good_for_one_request_only,
            storage_xml::a_signed_payload_is_the_one_that_is_stored,
            storage_xml::a_list_by_markers_ends,
            storage_xml::uploads_of_a_bucket_are_counted_and_end_with_it,
            storage_xml::objects_are_read_and_written_by_their_paths,
            storage_xml::a_form_uploads_what_its_policy_allows,
            storage_xml::a_batch_is_many_calls,
            resumable::a_large_object_comes_in_one_request,
            resumable::chunks_are_put_together,
            resumable::a_broken_connection_loses_less_than_a_quantum,
            resumable::the_last_request_may_only_say_that_it_is_all,
            resumable::an_end_may_be_open,
            resumable::go_continues_by_post_and_hides_308,
            resumable::an_upload_can_fail_at_its_end,
            storage::java_packs_bodies_and_names_methods,
            resumable::a_session_is_cancelled_or_never_was,
            resumable::a_session_ends_with_its_bucket,
            oauth::a_service_account_gets_tokens_by_its_key,
            oauth::a_person_signs_in,
            oauth::a_code_is_shown_to_who_has_no_browser_there,
            oauth::pages_of_others_cannot_sign_anyone_in,
            oauth::token_requests_are_checked,
            oauth::keys_and_endpoints_are_published,
            accounts::an_account_lives_and_dies,
            accounts::keys_are_listed_and_deleted,
            accounts::roles_are_listed,
            accounts::tokens_of_another_account_need_the_right_to_them,
            accounts::an_account_signs_for_who_may_ask,
            accounts::delegates_hand_the_right_on,
            metadata::an_instance_learns_who_it_is,
            metadata::a_disabled_account_has_no_tokens,
            logging::entries_are_written_and_read,
            logging::lists_and_writes_are_checked,
            pubsub::every_default,
            pubsub::every_limit,
            pubsub::a_schema_has_a_policy_of_its_own,
            scheduler::a_job_is_shown_with_googles_defaults,
            scheduler::every_limit,
            scheduler::jobs_that_cannot_run_are_refused,
            conditions::an_objects_name_counts_wherever_it_stands,
            conditions::a_list_has_one_prefix,
            conditions::a_secrets_version_is_meant_by_its_number,
            conditions::a_group_that_another_project_names_is_changed_by_who_may_set_its_policy,
            conditions::the_simulator_tells_of_the_named_project_alone,
        );
        failed
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    assert_eq!(failed, 0, "{failed} tests failed");
}
