//! The graph that entries hold: every operator with its states. It says whether a job can go on from a checkpoint.

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater_env::Env;
use highwater_log::{CheckpointEntry, OperatorEntry, StateEntry};
use highwater_state::KeyGroups;

use crate::Error;
use crate::plan::{Checked, Role};

/// What the graph calls a sink.
const SINK: &str = "sink";

/// Every node of the plan that has state or output, without schemas.
pub(crate) fn of(plan: &Checked, key_groups: KeyGroups, env: &Arc<dyn Env>) -> Vec<OperatorEntry> {
    let nodes = plan.nodes().iter().enumerate().filter(|(_, node)| node.is_stateful());
    let operators = nodes.map(|(id, node)| {
        let kind = match &node.role {
            Role::Source(..) => "source",
            Role::Sink(_) => SINK,
            Role::Operator { .. } => node.name,
        };
        let states = crate::dataflow::states_of(plan, id, key_groups, env).into_iter();
        let schema = serde_json::Value::Null;
        let states =
            states.map(|(name, kind)| StateEntry { name, kind, schema: schema.clone() }).collect();
        OperatorEntry { uid: plan.uid(id).to_owned(), kind: kind.to_owned(), states }
    });
    operators.collect()
}

/// A number by which processes see that they have built the same graph (invariant 7).
pub(crate) fn fingerprint(plan: &Checked, entries: &[OperatorEntry]) -> String {
    let nodes: Vec<String> =
        plan.nodes().iter().map(|node| format!("{node:?} {}", node.outputs)).collect();
    let text = format!("{nodes:?} {entries:?}");
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(text.as_bytes()))
}

/// States keep the schema in which they were last written until they are written again.
pub(crate) fn carry_schemas(graph: &mut [OperatorEntry], base: &CheckpointEntry) {
    let known: BTreeMap<(&str, &str), &StateEntry> = base
        .graph
        .iter()
        .flat_map(|operator| operator.states.iter().map(move |state| (operator, state)))
        .map(|(operator, state)| ((operator.uid.as_str(), state.name.as_str()), state))
        .collect();
    for OperatorEntry { uid, states, .. } in graph {
        for state in states {
            if let Some(known) = known.get(&(uid.as_str(), state.name.as_str())) {
                state.schema = known.schema.clone();
            }
        }
    }
}

/// Refuses a checkpoint that the job with this graph would not continue: whatever it holds must have an owner of its kind.
///
/// Whether the types of a state still fit its schema shows when it is read, because serde can't be asked which columns a type
/// would take. That is before anything can be committed.
pub(crate) fn check_fits(
    number: u64,
    checkpoint: &CheckpointEntry,
    graph: &[OperatorEntry],
) -> Result<(), Error> {
    let refused = |why: String, what_to_do: &str| {
        let what_to_do = format!("{what_to_do}, or start over with --fresh");
        Err(Error::Refused { why, what_to_do })
    };
    let version = checkpoint.configuration.hash_version;
    if version != highwater_codec::HASH_VERSION {
        return refused(
            format!(
                "checkpoint {number} places keys by version {version} of the hash, and this program by version {}",
                highwater_codec::HASH_VERSION
            ),
            "run the job with the version of Highwater that wrote it",
        );
    }
    let operators: BTreeMap<&str, &OperatorEntry> =
        graph.iter().map(|operator| (operator.uid.as_str(), operator)).collect();
    for OperatorEntry { uid, kind, states } in &checkpoint.graph {
        let operator = match operators.get(uid.as_str()) {
            Some(operator) if operator.kind == *kind => operator,
            Some(operator) => {
                return refused(
                    format!(
                        "in checkpoint {number} `{uid}` is a {kind}, in this job it is a {}",
                        operator.kind
                    ),
                    "give the new operator a uid of its own",
                );
            }
            None if states.is_empty() => continue,
            None => {
                return refused(
                    format!(
                        "checkpoint {number} holds state of the {kind} `{uid}`, which this job doesn't have"
                    ),
                    "give the operator its old uid back",
                );
            }
        };
        for StateEntry { name, kind: state_kind, .. } in states {
            let declared = operator.states.iter().find(|state| state.name == *name);
            match declared {
                Some(declared) if declared.kind == *state_kind => {}
                Some(declared) => {
                    return refused(
                        format!(
                            "in checkpoint {number} the state `{name}` of the {kind} `{uid}` is a {state_kind}, in this \
                             job it is a {}",
                            declared.kind
                        ),
                        "declare it as it was, and the new state under a name of its own",
                    );
                }
                None => {
                    return refused(
                        format!(
                            "checkpoint {number} holds the state `{name}` ({state_kind}) of the {kind} `{uid}`, which this \
                             job doesn't declare"
                        ),
                        "declare it again under that name",
                    );
                }
            }
        }
    }
    for output in &checkpoint.staged {
        if operators.get(output.sink.as_str()).is_none_or(|operator| operator.kind != SINK) {
            return refused(
                format!(
                    "checkpoint {number} holds output for the sink `{}`, not yet published, which this job doesn't have",
                    output.sink
                ),
                "give the sink its old name back",
            );
        }
    }
    Ok(())
}
