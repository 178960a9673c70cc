//! Workers run from an integration test.

#[test]
fn workers_run_from_an_integration_test() {
    procession_way_in::prove!("an integration test");
}
