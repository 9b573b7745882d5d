use super::*;

/// The flags of a coordinator that is started with these of a launch.
fn launch_flags(args: &[&str]) -> launch::LaunchArgs {
    let words = ["expertmesh", "launch"].iter().chain(args);
    let words: Vec<OsString> = words.map(OsString::from).collect();
    match parse_argv(&words).unwrap().command {
        Command::Launch(launch) => *launch,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_command_line_is_consistent() {
    command().debug_assert();
}

#[test]
fn flags_for_a_child_are_read_as_they_were_given() {
    let given = [
        "--experts",
        "16",
        "--top-k",
        "4",
        "--hidden",
        "64",
        "--ffn",
        "96",
        "--expert",
        "mlp",
        "--seed",
        "18446744073709551615",
        "--dtype",
        "bf16",
        "--placement",
        "round-robin",
        "--exchange",
        "hierarchical",
        "--group-size",
        "4",
        "--combine",
        "exact",
        "--capacity-factor",
        "1.1",
        "--overflow",
        "drop-weight",
        "--min-capacity",
        "3",
        "--eval-capacity-factor",
        "2",
        "--capacity-preset",
        "tutel",
        "--capacity-alignment",
        "8",
        "--automatic-capacity",
        "--capacity-scope",
        "worker",
        "--capacity-share",
        "senders:4",
        "--queue-order",
        "choice-major",
        "--drop-weights",
        "renormalise",
        "--gate",
        "sigmoid-bias",
        "--bias-rate",
        "0.25",
        "--training",
        "--wire-dtype",
        "f32",
        "--on-loss",
        "drop",
        "--deadline",
        "1.5s",
        "--credits",
        "7",
        "--chunk-bytes",
        "4096",
    ];
    let first = launch_flags(&given);
    let (model, step) = first.layer_and_step();
    let again: Vec<OsString> = model.to_argv().into_iter().chain(step.to_argv()).collect();
    let again: Vec<&str> = again.iter().map(|word| word.to_str().unwrap()).collect();
    let second = launch_flags(&again);
    assert_eq!(first.layer_and_step(), second.layer_and_step());
    assert_eq!(again.len(), given.len(), "nothing is left out: {again:?}");

    let checkpoint = launch_flags(&["--model", "dir", "--layer", "3"]);
    let argv = checkpoint.layer_and_step().0.to_argv();
    assert_eq!(argv, ["--model", "dir", "--layer", "3"]);
}

#[test]
fn flags_of_a_stack_are_read_as_they_were_given() {
    for exit in ["probability:0.9", "gap:0.25", "classifier:1", "entropy:1.5"] {
        let given = ["--layers", "3", "--depth-capacity", "0.125", "--exit", exit];
        let first = launch_flags(&given);
        assert_eq!(first.stack().to_argv(), given);
        let name = first.stack().describe("synthetic".to_owned());
        assert_eq!(
            name,
            format!("synthetic, 3 layers, depth 0.125, exit {exit}")
        );
    }
    let one = launch_flags(&["--layers", "1"]);
    assert!(!one.stack().residual());
    assert_eq!(one.stack().describe("synthetic".to_owned()), "synthetic");
}

#[test]
fn forced_routes_are_read_as_they_were_given() {
    for how in ["replay", "balance", "skew:2", "skew:-0.5"] {
        let flag: force::ForceFlag = how.parse().unwrap();
        let args = force::ForceArgs {
            force_routes: Some(flag),
        };
        assert_eq!(args.to_argv(), ["--force-routes", how]);
        assert!(args.kind().is_some());
    }
    for how in [
        "",
        "skew",
        "skew:",
        "skew:x",
        "skew:inf",
        "balance:1",
        "topk",
    ] {
        assert!(how.parse::<force::ForceFlag>().is_err(), "{how}");
    }
}

#[test]
fn times_are_numbers_with_units() {
    use std::time::Duration;
    use values::Wait;
    for (text, expected) in [
        ("30s", Duration::from_secs(30)),
        ("500ms", Duration::from_millis(500)),
        ("1.5s", Duration::from_millis(1500)),
        ("2m", Duration::from_secs(120)),
        ("250us", Duration::from_micros(250)),
    ] {
        let wait: Wait = text.parse().unwrap();
        assert_eq!(wait.0, expected, "{text}");
        assert_eq!(wait.to_string().parse::<Wait>(), Ok(wait), "{text}");
    }
    for text in [
        "",
        "5",
        "s",
        "-1s",
        "1 s",
        "1d",
        "1e9h",
        "0s",
        "999999999999999999999h",
    ] {
        assert!(text.parse::<Wait>().is_err(), "{text}");
    }
}
