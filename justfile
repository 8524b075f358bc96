# The verbs of this workspace: `just` lists them. Each is one command that also works without just.

_list:
    @{{ just_executable() }} --list --unsorted

# A whole sandbox, from nothing to CPython's tests inside it.
first-light:
    scripts/first-light

# All tests against real engines; arguments go to nextest.
test *arguments:
    scripts/test {{ arguments }}

# The tests that need no engine and answer in seconds.
test-policy:
    cargo nextest run -p sandbox-policy

# Formats everything.
format:
    cargo fmt --all

# Clippy, as the gate runs it.
lint:
    cargo clippy --workspace --all-targets -- -D warnings

# The documentation, as the gate builds it.
docs:
    RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps

# Licences, bans and sources of all dependencies.
deny:
    cargo deny check bans licenses sources

# One table of the figures to reach, against the development engine; arguments choose figures: exec, start, stream, memory, files.
bench *figures:
    scripts/engine start && scripts/image sandbox-debian && eval "$(scripts/engine env)" && cargo bench -p sandbox-benches --bench report -- {{ figures }}

# start, stop, status, env or list of the development engines.
engine verb="start" *names:
    scripts/engine {{ verb }} {{ names }}

# start, stop, status or env of the test registry.
registry verb="start":
    scripts/registry {{ verb }}

# Builds and imports the test images.
image *names:
    scripts/image {{ names }}

# What sandboxes have left on this host.
residue:
    scripts/residue

# All that has to pass before a change is handed in.
ci:
    .ci/run
