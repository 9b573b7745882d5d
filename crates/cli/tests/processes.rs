//! No process is left behind, and a lost worker never hangs a run.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail their test"
)]

mod common;

use std::time::Duration;

use common::processes::{Running, Watched, all_gone, processes_of};
use common::{SMALL, expertmesh, fails, golden, stdout, text};
use rustix::process::Signal;

/// More steps than any test waits for.
const LONG: [&str; 4] = ["--steps", "100000000", "--warmup", "1"];
/// The line with which the coordinator says that its workers hold their experts.
const UP: &str = "cluster is up";

/// A launch of the small shape with `more`, whose steps go on until somebody ends it.
fn long_launch(more: &[&str]) -> (Running, Vec<Watched>) {
    let mut args = vec!["launch"];
    args.extend(SMALL);
    // A flag that is given twice counts as given last.
    args.extend(LONG);
    args.extend(more);
    let mut launch = Running::start(&args);
    launch.stderr_line(UP);
    let children = launch.children();
    (launch, children)
}

fn names(children: &[Watched]) -> Vec<&str> {
    children.iter().map(|child| child.name.as_str()).collect()
}

fn named<'a>(children: &'a [Watched], name: &str) -> &'a Watched {
    children.iter().find(|child| child.name == name).unwrap()
}

/// Where the coordinator of a launch that stays is.
fn stay_address(launch: &mut Running) -> String {
    let line = launch.stdout_line("its coordinator is at");
    let address = line.split_once(" at ").unwrap().1;
    address.split_once(". ").unwrap().0.to_owned()
}

#[test]
fn a_run_through_a_stack_says_what_works() {
    let mut args = vec!["launch", "--workers", "1", "--layers", "2", "--stay"];
    args.extend(SMALL);
    let mut launch = Running::start(&args);
    let address = stay_address(&mut launch);
    let input = golden("mixtral").join("input.safetensors");
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("out.safetensors");
    let model = golden("mixtral");
    let run = [
        "run",
        "--coordinator",
        &address,
        "--layer",
        "1",
        "--model",
        text(&model),
    ];
    let files = ["--input", text(&input), "--output", text(&output)];
    let words = [
        "a stack of 2 layers",
        "without --layers",
        "--model DIR --layer N",
    ];
    fails(2, &[&run[..], &files].concat(), &words);
    launch.signal(Signal::INT);
    launch.end();
}

#[test]
fn a_launch_that_ends_well_leaves_no_process() {
    let mut args = vec!["launch", "--workers", "3"];
    args.extend(SMALL);
    let mut launch = Running::start(&args);
    launch.stderr_line(UP);
    let pid = launch.pid();
    let children = launch.children();
    let ended = launch.end();
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(ended.stdout.contains("output digest"), "{}", ended.stdout);
    // The launcher waits for its children, so they are gone when it is.
    assert!(
        children
            .iter()
            .all(|child| child.is_gone_within(Duration::ZERO))
    );
    assert!(processes_of(pid).is_empty());
}

#[test]
fn kill_9_of_the_launcher_leaves_no_process() {
    let (launch, children) = long_launch(&[]);
    let expected = [
        "coordinator",
        "worker-0",
        "worker-1",
        "worker-2",
        "worker-3",
    ];
    assert_eq!(names(&children), expected);
    launch.signal(Signal::KILL);
    all_gone(&children);
}

#[test]
fn ctrl_c_and_sigterm_stop_every_process_and_end_with_1() {
    for (signal, name) in [(Signal::INT, "SIGINT"), (Signal::TERM, "SIGTERM")] {
        let (launch, children) = long_launch(&["--workers", "2"]);
        launch.signal(signal);
        let ended = launch.end();
        assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
        assert!(
            ended.stderr.contains(&format!("error: ended by {name}")),
            "{}",
            ended.stderr
        );
        // The coordinator stops before the workers that it would miss.
        assert!(!ended.stderr.contains("WARN"), "{}", ended.stderr);
        all_gone(&children);
    }
}

#[test]
fn a_worker_that_dies_ends_the_launch_with_its_name() {
    for exchange in ["star", "all-to-all"] {
        let (launch, children) = long_launch(&["--exchange", exchange]);
        named(&children, "worker-2").signal(Signal::KILL);
        let ended = launch.end();
        assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
        let error = ended
            .stderr
            .lines()
            .find(|line| line.starts_with("error: "));
        assert!(error.unwrap().contains("worker-2"), "{}", ended.stderr);
        all_gone(&children);
    }
}

#[test]
fn a_coordinator_that_dies_ends_the_launch_with_its_name() {
    let (launch, children) = long_launch(&["--workers", "2", "--on-loss", "drop"]);
    named(&children, "coordinator").signal(Signal::KILL);
    let ended = launch.end();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("error: "), "{}", ended.stderr);
    assert!(ended.stderr.contains("coordinator"), "{}", ended.stderr);
    all_gone(&children);
}

#[test]
fn a_worker_that_hangs_ends_the_launch_within_the_deadline() {
    for exchange in ["star", "all-to-all"] {
        let (launch, children) = long_launch(&["--exchange", exchange, "--deadline", "700ms"]);
        named(&children, "worker-1").signal(Signal::STOP);
        let ended = launch.end();
        assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
        let error = ended
            .stderr
            .lines()
            .find(|line| line.starts_with("error: "));
        let error = error.unwrap();
        assert!(error.contains("worker-1"), "{error}");
        assert!(error.contains("did not answer"), "{error}");
        all_gone(&children);
    }
}

#[test]
fn with_on_loss_drop_a_lost_worker_is_counted_and_the_launch_succeeds() {
    for (signal, more) in [
        (Signal::KILL, ["--exchange", "all-to-all"]),
        (Signal::STOP, ["--exchange", "star"]),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("report.json");
        // Steps that take a second together, of which the signal needs the first moment.
        let mut args = vec!["--steps", "100", "--tokens", "256", "--hidden", "512"];
        args.extend(["--ffn", "256", "--on-loss", "drop", "--deadline", "1s"]);
        args.extend(["--report", text(&file)]);
        args.extend(more);
        let (launch, children) = long_launch(&args);
        named(&children, "worker-3").signal(signal);
        let ended = launch.end();
        assert!(ended.status.success(), "{more:?}: {}", ended.stderr);
        let overflow = &common::report(&file).runs[0].overflow;
        assert!(overflow.lost > 0, "{more:?}: {overflow:?}");
        overflow.check_conservation().unwrap();
        all_gone(&children);
    }
}

#[test]
fn clients_of_a_cluster_that_lost_a_worker_get_what_is_left() {
    for (signal, exchange) in [(Signal::STOP, "all-to-all"), (Signal::KILL, "star")] {
        let directory = tempfile::tempdir().unwrap();
        let model = golden("mixtral");
        let (input, output) = (
            model.join("input.safetensors"),
            directory.path().join("out.safetensors"),
        );
        let mut launch = Running::start(&[
            "launch",
            "--model",
            text(&model),
            "--layer",
            "1",
            "--workers",
            "2",
            "--steps",
            "0",
            "--stay",
            "--on-loss",
            "drop",
            "--deadline",
            "500ms",
            "--exchange",
            exchange,
        ]);
        let address = stay_address(&mut launch);
        let children = launch.children();
        named(&children, "worker-1").signal(signal);
        let summary = stdout(&[
            "run",
            "--coordinator",
            &address,
            "--input",
            text(&input),
            "--output",
            text(&output),
        ]);
        assert!(summary.contains(" lost"), "{exchange}: {summary}");
        let output = expertmesh_checkpoint::TensorFile::open(&output).unwrap();
        let (_, fates) = output.u8("fate").unwrap();
        assert!(
            fates.contains(&0) && fates.contains(&4),
            "{exchange}: {fates:?}"
        );
        launch.signal(Signal::INT);
        let ended = launch.end();
        assert!(ended.status.success(), "{}", ended.stderr);
        all_gone(&children);
    }
}

#[test]
fn a_cluster_that_stays_serves_many_clients_at_once_and_ends_well_by_ctrl_c() {
    let directory = tempfile::tempdir().unwrap();
    let model = golden("olmoe");
    let input = model.join("input.safetensors");
    let mut launch = Running::start(&[
        "launch",
        "--model",
        text(&model),
        "--layer",
        "1",
        "--workers",
        "2",
        "--steps",
        "2",
        "--stay",
    ]);
    let address = stay_address(&mut launch);
    let children = launch.children();

    let digests: Vec<String> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|client| {
                let output = directory.path().join(format!("out-{client}.safetensors"));
                let (address, input) = (&address, &input);
                scope.spawn(move || {
                    let args = [
                        "run",
                        "--coordinator",
                        address,
                        "--input",
                        text(input),
                        "--output",
                        text(&output),
                    ];
                    let summary = stdout(&args);
                    assert!(summary.contains("olmoe layer 1"), "{summary}");
                    let line = summary.lines().find(|line| line.contains("digest"));
                    line.unwrap().to_owned()
                })
            })
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect()
    });
    assert!(
        digests.windows(2).all(|pair| pair[0] == pair[1]),
        "{digests:?}"
    );

    // What a client says about the cluster must be true.
    let output = directory.path().join("out.safetensors");
    let run = |more: &[&str]| {
        let mut command = expertmesh();
        command.args(["run", "--coordinator", &address, "--input", text(&input)]);
        command.args(["--output", text(&output)]).args(more);
        let output = command.output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let agrees = [
        "--model",
        text(&model),
        "--layer",
        "1",
        "--exchange",
        "all-to-all",
        "--dtype",
        "f32",
        "--placement",
        "contiguous",
        "--overflow",
        "dropless",
        "--deadline",
        "30s",
    ];
    assert_eq!(run(&agrees), (Some(0), String::new()));
    for (more, words) in [
        (
            &["--exchange", "star"][..],
            "--exchange is star, the cluster has all-to-all",
        ),
        (&["--dtype", "bf16"], "--dtype is bf16, the cluster has f32"),
        (
            &["--placement", "round-robin"],
            "--placement is round-robin",
        ),
        (
            &["--group-size", "2"],
            "--group-size is 2, the cluster has groups []",
        ),
        (
            &["--credits", "9"],
            "--credits is 9, which the cluster does not have or tell",
        ),
        (&["--experts", "9"], "--experts is 9, the cluster has 8"),
        (&["--workers", "2"], "--workers"),
    ] {
        let (code, stderr) = run(more);
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
    }

    launch.signal(Signal::INT);
    let ended = launch.end();
    assert!(ended.status.success(), "{}", ended.stderr);
    all_gone(&children);
}

#[test]
fn roles_are_started_by_hand_too_and_stop_when_told() {
    let mut workers: Vec<Running> = (0..2)
        .map(|_| Running::start(&["worker", "--threads", "1"]))
        .collect();
    let address = |running: &mut Running| {
        let line = running.stdout_line("\"role\"");
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["pid"], running.pid().as_raw_nonzero().get());
        line["address"].as_str().unwrap().to_owned()
    };
    let addresses: Vec<String> = workers.iter_mut().map(address).collect();
    let model = golden("mixtral");
    let mut coordinator = Running::start(&[
        "coordinator",
        "--workers",
        &addresses.join(","),
        "--model",
        text(&model),
        "--layer",
        "1",
    ]);
    let at = address(&mut coordinator);
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("out.safetensors");
    let input = model.join("input.safetensors");
    let summary = stdout(&[
        "run",
        "--coordinator",
        &at,
        "--input",
        text(&input),
        "--output",
        text(&output),
    ]);
    assert!(summary.contains("2 workers"), "{summary}");
    coordinator.signal(Signal::TERM);
    let ended = coordinator.end();
    assert!(ended.status.success(), "{}", ended.stderr);
    for (worker, signal) in workers.into_iter().zip([Signal::TERM, Signal::INT]) {
        worker.signal(signal);
        let ended = worker.end();
        assert!(ended.status.success(), "{}", ended.stderr);
    }
}

#[test]
fn a_child_whose_launcher_is_gone_does_not_start() {
    // Process 1 is nobody's launcher here.
    common::fails(
        1,
        &["worker", "--die-with-parent", "1"],
        &["the launcher, process 1, is gone"],
    );
}
