//! The committed messages are what `proto/` says: they are generated again and compared.
//!
//! `EXPERTMESH_REGENERATE=1 cargo test -p expertmesh-wire --test generated` writes them anew.

use std::path::Path;

#[test]
fn committed_messages_equal_a_fresh_generation() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let proto = root.join("../../proto");
    let descriptors = protox::compile(["expertmesh/v1/expertmesh.proto"], [&proto])
        .expect("the protocol file compiles");
    let out = tempfile::tempdir().unwrap();
    prost_build::Config::new()
        .out_dir(out.path())
        .bytes([
            ".expertmesh.v1.Frame",
            ".expertmesh.v1.ForwardRequest",
            ".expertmesh.v1.ForwardReply",
            ".expertmesh.v1.Routing",
        ])
        .btree_map(["."])
        .compile_fds(descriptors)
        .expect("messages are generated");

    let fresh = std::fs::read_to_string(out.path().join("expertmesh.v1.rs")).unwrap();
    let committed = root.join("src/generated/expertmesh.v1.rs");
    if std::env::var_os("EXPERTMESH_REGENERATE").is_some() {
        std::fs::write(&committed, &fresh).unwrap();
    }
    let committed = std::fs::read_to_string(&committed).unwrap_or_default();
    assert!(
        committed == fresh,
        "src/generated/expertmesh.v1.rs is not what proto/ gives; \
         run with EXPERTMESH_REGENERATE=1 and commit the result"
    );
}
