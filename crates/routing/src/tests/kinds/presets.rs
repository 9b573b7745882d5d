use expertmesh_kernels::Format;

use super::message;
use crate::{FreeExpert, Kind, RouterConfig, RouterPreset};

#[test]
fn every_name_is_read_and_written() {
    let mut names: Vec<&str> = RouterPreset::all().iter().map(|info| info.name).collect();
    for info in RouterPreset::all() {
        let preset: RouterPreset = info.name.parse().unwrap();
        let again: RouterPreset = preset.to_string().parse().unwrap();
        let fits = |k| preset.config(16, k, Format::Bf16).ok();
        let config = fits(2).or(fits(1)).unwrap();
        let same = again.config(16, config.top_k, Format::Bf16).unwrap();
        assert_eq!(config, same, "{}", info.name);
        assert!(info.about.len() < 80, "{}", info.name);
    }
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn every_kind_has_a_preset() {
    let kinds: Vec<&str> = RouterPreset::all()
        .iter()
        .map(|info| {
            let preset: RouterPreset = info.name.parse().unwrap();
            let config = |k| preset.config(16, k, Format::F32);
            config(2).or(config(1)).unwrap().kind.name()
        })
        .collect();
    let all = [
        "topk",
        "node-limited",
        "rsample",
        "sampled-second",
        "gshard-random",
        "fastmoe-gshard",
        "sinkhorn",
        "hash",
        "expert-choice",
        "soft",
        "topology",
        "forced-balance",
        "forced-skew",
        "replay",
        "top-p",
        "threshold",
    ];
    for kind in all {
        assert!(kinds.contains(&kind), "{kind}");
        assert!(kind.parse::<RouterPreset>().is_ok(), "{kind}");
    }
}

#[test]
fn what_is_wrong_with_a_name_is_said() {
    let read = |text: &str| message(text.parse::<RouterPreset>());
    let error = read("sinkhrn");
    let start = "gate: \"sinkhrn\", expected one of topk, softmax-topk, topk-softmax, switch, ";
    assert!(error.starts_with(start), "{error}");
    assert_eq!(
        read("switch:1"),
        "gate: \"switch:1\", expected at most 0 arguments to switch"
    );
    assert_eq!(
        read("soft:1.5"),
        "gate argument: \"1.5\", expected a whole number from 0 to 262144, such as 1, for the slots of soft"
    );
    assert!(read("noisy:inf").contains("a finite number, such as 0.01, for the eps of noisy"));
    // What takes room is bounded before it is made.
    for name in [
        "null",
        "longcat",
        "moe++",
        "soft",
        "deepseek-v3",
        "node-limited",
    ] {
        let error = read(&format!("{name}:9007199254740992"));
        assert!(
            error.contains("expected a whole number from 0 to 262144, such as"),
            "{error}"
        );
    }
    assert!("hash:9007199254740992".parse::<RouterPreset>().is_ok());
    let switch: RouterPreset = "switch".parse().unwrap();
    assert_eq!(
        message(switch.config(8, 2, Format::F32)),
        "top_k: 2, expected 1, as switch has"
    );
}

#[test]
fn arguments_arrive() {
    let config = |text: &str| -> RouterConfig {
        let preset: RouterPreset = text.parse().unwrap();
        preset.config(8, 2, Format::F32).unwrap()
    };
    let groups = config("deepseek-v3:4,2").groups.unwrap();
    assert_eq!((groups.n, groups.keep), (4, 2));
    assert_eq!(config("sigmoid-bias").groups, None);
    assert_eq!(config("top-p:0.75").kind, Kind::TopP { p: 0.75 });
    assert_eq!(config("topology").kind, Kind::Topology { outgoing: 0.14 });
    let with_free = config("moe++:3");
    assert_eq!(with_free.experts, 13);
    assert_eq!(
        with_free.free[..2],
        [FreeExpert::Null, FreeExpert::Identity]
    );
    assert_eq!(with_free.free[2..], [FreeExpert::Constant; 3]);
}

#[test]
fn impossible_kinds_are_refused_by_field() {
    let base = |kind| RouterConfig {
        kind,
        ..RouterConfig::mixtral(4, 2, Format::F32)
    };
    let refused = |config: RouterConfig| message(config.validate());
    assert_eq!(
        refused(base(Kind::ExpertChoice { factor: 0.0 })),
        "kind factor: 0, expected a finite number above 0"
    );
    assert!(refused(base(Kind::TopP { p: 1.5 })).starts_with("kind p: 1.5"));
    assert!(refused(base(Kind::TopP { p: f32::NAN })).starts_with("kind p: NaN"));
    assert!(refused(base(Kind::Topology { outgoing: -0.1 })).starts_with("kind outgoing: -0.1"));
    assert!(refused(base(Kind::ForcedSkew { std: f32::NAN })).starts_with("kind std: NaN"));
    let soft = Kind::Soft {
        slots_per_expert: 0,
        scale: None,
    };
    assert!(refused(base(soft)).starts_with("kind slots_per_expert: 0"));
    let preset: RouterPreset = "soft:32769".parse().unwrap();
    assert_eq!(
        message(preset.config(8, 1, Format::F32)),
        "kind slots_per_expert: 32769, expected at most 32768, which makes 262144 of 8 experts"
    );
    let three = RouterConfig {
        top_k: 3,
        ..base(Kind::SampledSecond)
    };
    assert_eq!(
        refused(three),
        "top_k: 3, expected 2, because sampled-second has a second expert"
    );
    let grouped = RouterConfig {
        kind: Kind::Replay,
        ..RouterConfig::group_limited(4, 2, 2, 1, Format::F32)
    };
    assert_eq!(
        refused(grouped),
        "groups: group limits, expected none, because replay does not choose by groups"
    );
    let free = RouterConfig {
        free: vec![FreeExpert::Null; 4],
        ..base(Kind::TopK)
    };
    assert_eq!(
        refused(free),
        "free experts: 4, expected fewer than 4, the number of experts"
    );
}
