use super::*;

fn launch() -> Command {
    let command = crate::args::command();
    command.find_subcommand("launch").unwrap().clone()
}

fn flags(text: &str) -> Result<Vec<OsString>, String> {
    to_flags(&launch(), text)
}

#[test]
fn keys_become_flags() {
    let text = "workers = 3\nexpert = 'mlp'\ncapacity-factor = 1.5\nstay = true\n";
    let expected = [
        "--capacity-factor=1.5",
        "--expert=mlp",
        "--stay",
        "--workers=3",
    ];
    let mut got = flags(text).unwrap();
    got.sort();
    assert_eq!(got, expected);
    assert!(flags("stay = false").unwrap().is_empty());
}

#[test]
fn every_flag_of_launch_but_the_file_itself_is_a_key() {
    let command = launch();
    let names: Vec<&str> = keys(&command).map(|(name, _)| name).collect();
    for name in [
        "workers", "experts", "exchange", "tokens", "stay", "report", "model", "on-loss",
    ] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    assert!(!names.contains(&"config"));
    assert!(!names.contains(&"log-format"));
}

#[test]
fn flags_of_the_file_stand_before_those_of_the_command_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("cluster.toml");
    std::fs::write(&file, "workers = 3").unwrap();
    let argv = [
        "expertmesh",
        "--log-format",
        "json",
        "launch",
        "--workers",
        "5",
    ];
    let argv: Vec<OsString> = argv.map(OsString::from).to_vec();
    let merged = merge("launch", &file, &argv).unwrap();
    let expected = [
        "expertmesh",
        "--log-format",
        "json",
        "launch",
        "--workers=3",
        "--workers",
        "5",
    ];
    assert_eq!(merged, expected);
}
