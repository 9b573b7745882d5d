//! The committed service glue is what `proto/` says: it is generated again and compared.
//!
//! `EXPERTMESH_REGENERATE=1 cargo test -p expertmesh-transport --test generated` writes it anew.

use std::path::Path;

#[test]
fn committed_services_equal_a_fresh_generation() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let proto = root.join("../../proto");
    let descriptors = protox::compile(["expertmesh/v1/expertmesh.proto"], [&proto])
        .expect("the protocol file compiles");
    let out = tempfile::tempdir().unwrap();
    tonic_prost_build::configure()
        .out_dir(out.path())
        // Stubs are made from channels of this crate; the library's own `connect` would also
        // clash with the call of that name.
        .build_transport(false)
        .extern_path(".expertmesh.v1", "::expertmesh_wire::v1")
        .compile_fds(descriptors)
        .expect("services are generated");

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
