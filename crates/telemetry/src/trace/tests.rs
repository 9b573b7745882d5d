use super::*;

fn trace() -> Trace {
    let mut trace = Trace::new(&["coordinator".to_owned(), "worker-0".to_owned()]);
    trace.lanes.push(Lane {
        endpoint: 0,
        phase: Phase::Send,
        step: 7,
        begin_ns: 10,
        end_ns: 30,
        peer: Some(1),
        bytes: 4096,
        predicted: false,
    });
    trace.lanes.push(Lane {
        endpoint: 1,
        phase: Phase::Experts,
        step: 8,
        begin_ns: 30,
        end_ns: 31,
        peer: None,
        bytes: 0,
        predicted: true,
    });
    trace
}

#[test]
fn json_leaves_out_what_is_not_there() {
    let text = serde_json::to_string(&trace()).unwrap();
    let expected = concat!(
        r#"{"endpoints":["coordinator","worker-0"],"lanes":["#,
        r#"{"endpoint":0,"phase":"send","step":7,"begin_ns":10,"end_ns":30,"peer":1,"bytes":4096},"#,
        r#"{"endpoint":1,"phase":"experts","step":8,"begin_ns":30,"end_ns":31,"predicted":true}]}"#,
    );
    assert_eq!(text, expected);
    assert_eq!(serde_json::from_str::<Trace>(&text).unwrap(), trace());
}

#[test]
fn steps_are_told_apart_and_so_are_predictions() {
    let trace = trace();
    assert_eq!(trace.steps().into_iter().collect::<Vec<_>>(), [7, 8]);
    assert_eq!(trace.of_step(7, false).count(), 1);
    assert_eq!(trace.of_step(7, true).count(), 0);
    assert_eq!(
        trace.of_step(8, true).map(Lane::duration_ns).sum::<u64>(),
        1
    );
}

#[test]
fn traces_of_one_cluster_merge_and_others_do_not() {
    let mut one = trace();
    one.merge(&trace()).unwrap();
    assert_eq!(one.lanes.len(), 4);
    let error = one.merge(&Trace::new(&["other".to_owned()])).unwrap_err();
    assert!(matches!(error, TelemetryError::Endpoints { .. }));
    assert_eq!(one.lanes.len(), 4);
}

#[test]
fn a_lane_that_cannot_be_is_named() {
    trace().check().unwrap();
    type Break = fn(&mut Lane);
    let breaks: [(&str, Break); 3] = [
        ("endpoint", |lane| lane.endpoint = 2),
        ("peer", |lane| lane.peer = Some(9)),
        ("end_ns", |lane| lane.end_ns = 29),
    ];
    for (field, spoil) in breaks {
        let mut trace = trace();
        spoil(&mut trace.lanes[1]);
        let message = trace.check().unwrap_err().to_string();
        assert!(
            message.starts_with(&format!("lanes[1].{field} is ")),
            "{message}"
        );
    }
}
