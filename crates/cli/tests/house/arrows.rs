//! Which crate may use which: the table of docs/architecture.md.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use crate::{none, root, sources};

const GROUND: &[&str] = &["kernels", "topology", "telemetry"];
const CORE: &[&str] = &["routing", "placement", "experts", "wire"];
const EDGES: &[&str] = &["transport", "checkpoint"];

/// What crate `name` may use by normal and build dependencies; `None` for a crate that the table
/// does not have.
fn may_use(name: &str) -> Option<Vec<&'static str>> {
    let below_roles = || [GROUND, CORE, &["exchange"], EDGES].concat();
    Some(match name {
        "kernels" | "topology" | "telemetry" => Vec::new(),
        "routing" | "experts" | "wire" => vec!["kernels"],
        "placement" => vec!["topology"],
        // Of the kernels the formats and the row arithmetic; see `exchange_knows_no_products`.
        "exchange" => vec!["routing", "placement", "wire", "telemetry", "kernels"],
        "transport" => vec!["wire", "topology", "telemetry"],
        "checkpoint" => vec!["routing", "experts", "kernels"],
        "worker" | "coordinator" => below_roles(),
        "simulator" => [GROUND, CORE, &["exchange", "checkpoint"]].concat(),
        "training" => [below_roles(), vec!["worker", "coordinator"]].concat(),
        "bench" => [below_roles(), vec!["worker", "coordinator", "simulator"]].concat(),
        "report" => vec!["telemetry"],
        "cli" | "testkit" => {
            let jobs = [
                "worker",
                "coordinator",
                "simulator",
                "training",
                "bench",
                "report",
            ];
            [below_roles(), jobs.to_vec()].concat()
        }
        _ => return None,
    })
}

/// Libraries that one crate alone knows, by the beginning of their names.
const ALONE: &[(&str, &str)] = &[
    ("tonic", "transport"),
    ("hyper", "transport"),
    ("h2", "transport"),
    ("rustls", "transport"),
];

/// What a crate must never use, by the beginning of its name.
const NEVER: &[(&str, &str)] = &[
    ("exchange", "tokio"),
    ("exchange", "tonic"),
    ("exchange", "rayon"),
    ("simulator", "tokio"),
    ("routing", "tokio"),
    ("placement", "tokio"),
    ("experts", "tokio"),
    ("wire", "tokio"),
    ("kernels", "tokio"),
    ("kernels", "rayon"),
    ("telemetry", "tokio"),
    ("checkpoint", "tokio"),
    ("report", "tokio"),
];

/// A package of the workspace with the names of its dependencies, dev ones apart.
struct Package {
    name: String,
    uses: Vec<String>,
    uses_in_tests: Vec<String>,
}

fn package(name: &str, uses: &[&str]) -> Package {
    Package {
        name: name.to_owned(),
        uses: uses.iter().map(|name| (*name).to_owned()).collect(),
        uses_in_tests: Vec::new(),
    }
}

/// Every arrow that the table does not have.
fn wrong_arrows(packages: &[Package]) -> Vec<String> {
    let mut complaints = Vec::new();
    for package in packages {
        let Some(name) = package.name.strip_prefix("expertmesh-") else {
            continue; // An example: a user of the library, bound by nothing.
        };
        let Some(allowed) = may_use(name) else {
            complaints.push(format!("crate {name} is not in the table of arrows"));
            continue;
        };
        for used in &package.uses {
            match used.strip_prefix("expertmesh-") {
                Some("testkit") => {
                    complaints.push(format!("{name} -> testkit, which is for tests only"));
                }
                Some(ours) if !allowed.contains(&ours) => {
                    complaints.push(format!("{name} -> {ours} is no arrow of the table"));
                }
                _ => {}
            }
            let alone = ALONE
                .iter()
                .find(|(library, owner)| used.starts_with(library) && *owner != name);
            if let Some((library, owner)) = alone {
                complaints.push(format!("{name} uses {used}: {owner} alone knows {library}"));
            }
            if NEVER
                .iter()
                .any(|(who, what)| *who == name && used.starts_with(what))
            {
                complaints.push(format!("{name} must not know {used}"));
            }
        }
    }
    complaints
}

/// The packages of the workspace, as cargo sees them.
fn packages() -> Vec<Package> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| env!("CARGO").to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--locked"])
        .args(["--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo metadata: {said}");
    from_metadata(&serde_json::from_slice(&output.stdout).unwrap())
}

fn from_metadata(metadata: &Value) -> Vec<Package> {
    let packages = metadata["packages"].as_array().unwrap();
    let read = |package: &Value| {
        let mut by_kind: BTreeMap<bool, Vec<String>> = BTreeMap::new();
        for dependency in package["dependencies"].as_array().unwrap() {
            let name = dependency["name"].as_str().unwrap().to_owned();
            let for_tests = dependency["kind"] == "dev";
            by_kind.entry(for_tests).or_default().push(name);
        }
        Package {
            name: package["name"].as_str().unwrap().to_owned(),
            uses: by_kind.remove(&false).unwrap_or_default(),
            uses_in_tests: by_kind.remove(&true).unwrap_or_default(),
        }
    };
    packages.iter().map(read).collect()
}

#[test]
fn arrows_are_those_of_the_table() {
    let packages = packages();
    assert!(packages.len() > 10, "only {} packages", packages.len());
    none(wrong_arrows(&packages));
}

#[test]
fn exchange_knows_no_products() {
    let complaints = sources()
        .into_iter()
        .filter(|source| source.path.starts_with("crates/exchange/src/"))
        .flat_map(|source| {
            let words = [
                "matmul",
                "PackedMatrix",
                "std::time",
                "std::thread",
                "std::net",
            ];
            words
                .into_iter()
                .filter(|word| source.text.contains(word))
                .map(|word| format!("{} names {word}", source.path))
                .collect::<Vec<_>>()
        });
    none(complaints.collect());
}

// === the rules see what they are for ===

#[test]
fn a_wrong_arrow_is_seen() {
    let wrong = |name: &str, uses: &[&str]| wrong_arrows(&[package(name, uses)]);
    let up = wrong(
        "expertmesh-routing",
        &["expertmesh-kernels", "expertmesh-wire"],
    );
    assert_eq!(up, ["routing -> wire is no arrow of the table"]);
    let along = wrong("expertmesh-worker", &["expertmesh-coordinator"]);
    assert_eq!(along, ["worker -> coordinator is no arrow of the table"]);
    let kit = wrong(
        "expertmesh-cli",
        &["expertmesh-bench", "expertmesh-testkit"],
    );
    assert_eq!(kit, ["cli -> testkit, which is for tests only"]);
    let new = wrong("expertmesh-misc", &[]);
    assert_eq!(new, ["crate misc is not in the table of arrows"]);
    let grpc = wrong("expertmesh-worker", &["tonic-health"]);
    assert_eq!(
        grpc,
        ["worker uses tonic-health: transport alone knows tonic"]
    );
    let runtime = wrong("expertmesh-exchange", &["bytes", "tokio-stream"]);
    assert_eq!(runtime, ["exchange must not know tokio-stream"]);
    let fine = ["expertmesh-wire", "tonic", "hyper-util", "tokio"];
    assert!(wrong("expertmesh-transport", &fine).is_empty());
}

#[test]
fn kinds_of_dependencies_are_told_apart() {
    let metadata = serde_json::json!({"packages": [{"name": "expertmesh-cli", "dependencies": [
        {"name": "expertmesh-testkit", "kind": "dev"},
        {"name": "expertmesh-bench", "kind": null},
        {"name": "expertmesh-report", "kind": "build"},
    ]}]});
    let packages = from_metadata(&metadata);
    assert_eq!(packages[0].uses, ["expertmesh-bench", "expertmesh-report"]);
    assert_eq!(packages[0].uses_in_tests, ["expertmesh-testkit"]);
}
