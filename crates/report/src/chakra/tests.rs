use std::collections::{BTreeMap, BTreeSet};

use expertmesh_telemetry::{
    CombineKind, ExchangeKind, Identity, Lane, Load, Run, RunRecorder, Source, StepRecord,
};

use super::*;

fn run(exchange: ExchangeKind) -> Run {
    let names = ["coordinator", "worker-0", "worker-1"].map(str::to_owned);
    let mut recorder = RunRecorder::new(&names);
    let peers = match exchange {
        ExchangeKind::Star => 0,
        _ => 40,
    };
    for more in [0, 1] {
        let step = StepRecord {
            phases_ns: [1_000; Phase::COUNT],
            matrix: vec![
                vec![0, 100 + more, 200],
                vec![300, 0, peers],
                vec![400, peers, 0],
            ],
            ..StepRecord::default()
        };
        recorder.record(&step).unwrap();
    }
    let identity = Identity {
        seed: 1,
        groups: Vec::new(),
        model: String::new(),
        shape: None,
        placement_digest: String::new(),
        workload: String::new(),
        exchange,
        combine: CombineKind::Exact,
        workers: 2,
        endpoints: Vec::new(),
        numerics: String::new(),
    };
    recorder.finish(identity, Load::closed(2, 0, 1.0), Source::Measured, None)
}

/// Metadata and nodes of a file.
fn decode(file: &[u8]) -> (GlobalMetadata, Vec<Node>) {
    let mut rest = file;
    let metadata = GlobalMetadata::decode_length_delimited(&mut rest).unwrap();
    let mut nodes = Vec::new();
    while !rest.is_empty() {
        nodes.push(Node::decode_length_delimited(&mut rest).unwrap());
    }
    (metadata, nodes)
}

fn value<'a>(node: &'a Node, name: &str) -> Option<&'a Value> {
    let attribute = node.attr.iter().find(|attribute| attribute.name == name)?;
    attribute.value.as_ref()
}

/// (tag, source, destination, bytes)
fn message(node: &Node) -> (i32, i32, i32, i64) {
    let small = |name| match value(node, name) {
        Some(Value::Int32(value)) => *value,
        other => panic!("{name}: {other:?}"),
    };
    let Some(Value::Int64(bytes)) = value(node, "comm_size") else {
        panic!("no size");
    };
    let ends = (small("comm_src"), small("comm_dst"));
    (small("comm_tag"), ends.0, ends.1, *bytes)
}

#[test]
fn every_send_has_its_receive_and_bytes_are_those_of_the_mean_step() {
    for exchange in [ExchangeKind::Star, ExchangeKind::AllToAll] {
        let run = run(exchange);
        let (mut sent, mut received) = (BTreeMap::new(), BTreeMap::new());
        for (endpoint, file) in chakra(&run, None).unwrap().iter().enumerate() {
            let (metadata, nodes) = decode(file);
            assert_eq!(metadata.version, "1.0.0");
            let of = |kind: NodeType| nodes.iter().filter(move |node| node.r#type == kind as i32);
            for node in of(NodeType::CommSend) {
                let (tag, source, destination, bytes) = message(node);
                assert_eq!(usize::try_from(source), Ok(endpoint));
                assert!(sent.insert(tag, (source, destination, bytes)).is_none());
            }
            for node in of(NodeType::CommRecv) {
                let (tag, source, destination, bytes) = message(node);
                assert_eq!(usize::try_from(destination), Ok(endpoint));
                assert!(received.insert(tag, (source, destination, bytes)).is_none());
            }
        }
        assert_eq!(sent, received, "{exchange}");
        // 100 and 101 bytes in two steps are 101 a step.
        assert_eq!(sent[&1], (0, 1, 101));
        assert_eq!(
            sent.len(),
            if exchange == ExchangeKind::Star { 4 } else { 6 }
        );
        let matrix = run.communication.matrix_bytes.iter().flatten();
        let all: u64 = matrix.map(|bytes| bytes.div_ceil(2)).sum();
        assert_eq!(
            sent.values().map(|(_, _, bytes)| bytes).sum::<i64>(),
            all.cast_signed()
        );
    }
}

/// Runs all files against each other; true if every node gets its turn.
fn completes(files: &[Vec<Node>]) -> bool {
    let mut done: BTreeSet<(usize, u64)> = BTreeSet::new();
    let mut sent: BTreeSet<i32> = BTreeSet::new();
    loop {
        let before = done.len();
        for (endpoint, nodes) in files.iter().enumerate() {
            for node in nodes {
                let ready = node
                    .data_deps
                    .iter()
                    .all(|dep| done.contains(&(endpoint, *dep)));
                let arrived =
                    node.r#type != NodeType::CommRecv as i32 || sent.contains(&message(node).0);
                let is_new = ready && arrived && done.insert((endpoint, node.id));
                if is_new && node.r#type == NodeType::CommSend as i32 {
                    sent.insert(message(node).0);
                }
            }
        }
        if done.len() == before {
            return done.len() == files.iter().map(Vec::len).sum::<usize>();
        }
    }
}

#[test]
fn nobody_waits_for_ever_and_the_sum_waits_for_all() {
    for exchange in [ExchangeKind::Star, ExchangeKind::AllToAll] {
        let files = chakra(&run(exchange), None).unwrap();
        let nodes: Vec<Vec<Node>> = files.iter().map(|file| decode(file).1).collect();
        assert!(completes(&nodes), "{exchange}");
        let sum = nodes[0].iter().find(|node| node.name == "combine").unwrap();
        assert_eq!(sum.data_deps.len(), 2);
        let experts = nodes[1].iter().find(|node| node.name == "experts").unwrap();
        assert_eq!(value(experts, "duration_ns"), Some(&Value::Uint64(1_000)));
        // A sender that never gets its turn is found.
        let mut broken = nodes.clone();
        broken[0].remove(0);
        assert!(!completes(&broken), "{exchange}");
    }
}

#[test]
fn lanes_give_messages_their_time() {
    let mut trace = Trace::new(&["coordinator", "worker-0", "worker-1"].map(str::to_owned));
    for (step, took) in [(0, 1_500), (1, 2_501)] {
        trace.lanes.push(Lane {
            endpoint: 0,
            phase: Phase::Send,
            step,
            begin_ns: 10,
            end_ns: 10 + took,
            peer: Some(1),
            bytes: 0,
            predicted: false,
        });
    }
    let files = chakra(&run(ExchangeKind::Star), Some(&trace)).unwrap();
    let (_, nodes) = decode(&files[0]);
    let timed = nodes.iter().filter(|node| node.name.starts_with("send"));
    let times: Vec<_> = timed
        .map(|node| (value(node, "duration_ns"), node.duration_micros))
        .collect();
    assert_eq!(times, [(Some(&Value::Uint64(2_000)), 2), (None, 0)]);
}

#[test]
fn a_run_without_traffic_is_refused() {
    let mut run = run(ExchangeKind::Star);
    run.communication.matrix_bytes[1].pop();
    assert!(matches!(
        chakra(&run, None),
        Err(ReportError::NotSquare { row: 1, .. })
    ));
    run.communication.matrix_bytes.clear();
    assert!(matches!(
        chakra(&run, None),
        Err(ReportError::Nothing { .. })
    ));
}
