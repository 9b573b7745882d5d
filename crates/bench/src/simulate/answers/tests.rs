use super::*;

fn worker(critical_share: f64) -> WorkerLoad {
    WorkerLoad {
        name: "worker-2".to_owned(),
        critical_share,
        home: None,
        received: 1.0,
        computed: 1.05,
        choices: 1.0,
        hottest: None,
    }
}

fn said(critical_share: f64) -> Vec<String> {
    let answers = Answers {
        slowest: Some(worker(critical_share)),
        path: vec![("between layers", 0.9), ("experts", 0.06), ("plan", 0.001)],
        busiest_port: Some(("node1.nic1 out".to_owned(), 0.25)),
    };
    answers.sentences()
}

#[test]
fn whoever_is_always_last_is_not_so_by_chance() {
    assert!(said(0.4)[0].ends_with("who is last is chance"));
    let [always, path, port] = &said(1.0)[..] else {
        panic!("three sentences");
    };
    assert!(always.starts_with("worker-2 ends 100 % of the steps: "));
    assert!(!always.contains("chance"), "{always}");
    assert_eq!(path, "critical path: between layers 90 %, experts 6 %");
    assert!(port.contains("node1.nic1 out") && port.ends_with("busy 25 % of the time"));
}
