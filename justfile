# Mirrors .ci/run, one line each. Nothing needs `just`: every line runs as it stands, from this folder.

# everything a change must pass
ci:
    .ci/run

# the demo: gateway, example services and page on loopback
demo:
    cargo run --release

test:
    cargo test --locked --workspace

lint:
    cargo fmt --all --check && cargo clippy --locked --workspace --all-targets -- -D warnings

docs:
    RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps

deny:
    cargo deny --locked check licenses bans sources

# TypeScript, Go, Python and Java stubs of the contract and of the example schemas, in gen/
stubs:
    clients/stubs.sh gen

# the same of your own schemas: just stubs-of path/to/protos
stubs-of SCHEMAS:
    SCHEMAS={{SCHEMAS}} clients/stubs.sh gen
