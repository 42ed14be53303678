//! The handle that a job function builds its plan with.

use std::cell::{RefCell, RefMut};
use std::fmt;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;

use highwater_runtime::connector::{Malformed, Reject, Source};
use highwater_runtime::plan::{Edge, Exchange, Node, NodeId, Port, Role, Times};
use highwater_runtime::{Data, Operator, OperatorContext, Plan, Wants};

use super::Stream;
use crate::connectors::IntoSource;

/// A job under construction: the start of every stream.
///
/// Handles are cheap to clone, and all clones build the same plan. Building never fails on the spot: whatever is wrong is
/// noted with its place in the code, and all of it is reported together before anything runs.
#[derive(Clone, Default)]
pub struct Job {
    plan: Rc<RefCell<Plan>>,
}

impl Job {
    /// A job without any nodes.
    pub(crate) fn new() -> Self {
        Job::default()
    }

    /// Takes the plan out; streams that still exist can't change it any more.
    pub(crate) fn into_plan(self) -> Plan {
        self.plan.take()
    }

    /// Reads records from `source`, on all workers, in the splits (files, partitions) that it has.
    ///
    /// `uid` names the source in checkpoints: how far it has been read is found again under this name, so keep it when
    /// the job changes.
    ///
    /// A uid that is malformed or taken is reported when the job is checked. A record that can't be read ends the job with an error that
    /// says where it is; [`read_or_skip`](Self::read_or_skip) and [`read_with_rejects`](Self::read_with_rejects) go on.
    ///
    /// ```
    /// use highwater::testing::{self, Collect};
    ///
    /// let run = testing::run(2, |job| {
    ///     job.read("numbers", vec![1u64, 2, 3]).write("seen", Collect);
    /// })?;
    /// let mut seen = run.committed::<u64>("seen");
    /// seen.sort();
    /// assert_eq!(seen, [1, 2, 3]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn read<T: Data>(&self, uid: &str, source: impl IntoSource<T>) -> Stream<T> {
        let node = self.source(uid, source.into_source(), Malformed::Fail, Location::caller());
        Stream::new(self.clone(), node, 0)
    }

    /// Reads as [`read`](Self::read) does, and leaves out records that can't be read. They are counted, and the count is shown.
    ///
    /// ```
    /// use highwater::connectors::Files;
    /// use highwater::testing::{self, Collect};
    ///
    /// let folder = tempfile::tempdir()?;
    /// std::fs::write(folder.path().join("numbers.ndjson"), "1\nzwei\n3\n")?;
    /// let run = testing::run(1, |job| {
    ///     job.read_or_skip::<u64>("numbers", Files::ndjson(folder.path())).write("seen", Collect);
    /// })?;
    /// assert_eq!(run.committed::<u64>("seen"), [1, 3]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn read_or_skip<T: Data>(&self, uid: &str, source: impl IntoSource<T>) -> Stream<T> {
        let node = self.source(uid, source.into_source(), Malformed::Skip, Location::caller());
        Stream::new(self.clone(), node, 0)
    }

    /// Reads as [`read`](Self::read) does, and makes a second stream of the records that can't be read: with their place, their text and
    /// what is wrong. It is a stream as any other, exactly once like the first.
    ///
    /// ```
    /// use highwater::connectors::{Files, Reject};
    /// use highwater::testing::{self, Collect};
    ///
    /// let folder = tempfile::tempdir()?;
    /// std::fs::write(folder.path().join("numbers.ndjson"), "1\nzwei\n3\n")?;
    /// let run = testing::run(1, |job| {
    ///     let (numbers, rejects) = job.read_with_rejects::<u64>("numbers", Files::ndjson(folder.path()));
    ///     numbers.write("seen", Collect);
    ///     rejects.write("rejects", Collect);
    /// })?;
    /// assert_eq!(run.committed::<u64>("seen"), [1, 3]);
    /// let rejects = run.committed::<Reject>("rejects");
    /// assert_eq!((rejects[0].line, &*rejects[0].text), (Some(2), "zwei"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn read_with_rejects<T: Data>(
        &self,
        uid: &str,
        source: impl IntoSource<T>,
    ) -> (Stream<T>, Stream<Reject>) {
        let node = self.source(uid, source.into_source(), Malformed::Reject, Location::caller());
        (Stream::new(self.clone(), node, 0), Stream::new(self.clone(), node, 1))
    }

    fn source(
        &self,
        uid: &str,
        source: Arc<dyn Source>,
        malformed: Malformed,
        at: &'static Location<'static>,
    ) -> NodeId {
        let node = self.add(Node {
            name: "source",
            uid: None,
            role: Role::Source(source, malformed),
            inputs: Vec::new(),
            outputs: if malformed == Malformed::Reject { 2 } else { 1 },
            times: Times::Dropped,
            watermark: None,
            at,
        });
        self.set_uid(node, uid, at);
        node
    }

    /// Appends a node.
    pub(crate) fn add(&self, node: Node) -> NodeId {
        self.plan.borrow_mut().add(node)
    }

    /// Appends an operator.
    pub(crate) fn operator<O: Operator + 'static>(
        &self,
        spec: Spec,
        make: impl Fn(&OperatorContext) -> O + Send + Sync + 'static,
    ) -> NodeId {
        self.add(Node {
            name: spec.name,
            uid: None,
            role: Role::Operator {
                make: Arc::new(move |context| Box::new(make(context))),
                wants: spec.wants,
            },
            inputs: spec.inputs,
            outputs: spec.outputs,
            times: spec.times,
            watermark: spec.watermark,
            at: spec.at,
        })
    }

    /// Names a node, or notes why it can't have that name.
    pub(crate) fn set_uid(&self, node: NodeId, uid: &str, at: &Location<'_>) {
        self.plan.borrow_mut().set_uid(node, uid, at);
    }

    /// The plan, to be asked or added to.
    pub(crate) fn plan(&self) -> RefMut<'_, Plan> {
        self.plan.borrow_mut()
    }

    /// Notes an error of the plan.
    pub(crate) fn error(&self, at: &Location<'_>, what: impl Into<String>) {
        self.plan.borrow_mut().error(at, what);
    }

    /// Whether both handles build the same plan.
    pub(crate) fn is_same(&self, other: &Job) -> bool {
        Rc::ptr_eq(&self.plan, &other.plan)
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.plan.borrow().nodes()).finish()
    }
}

/// An operator's place in the plan.
pub(crate) struct Spec {
    /// What it does.
    pub(crate) name: &'static str,
    /// Where its rows come from.
    pub(crate) inputs: Vec<Edge>,
    /// How many outputs it has.
    pub(crate) outputs: usize,
    /// What it needs from the runtime.
    pub(crate) wants: Wants,
    /// What becomes of the event times of rows.
    pub(crate) times: Times,
    /// Whose watermark it is told.
    pub(crate) watermark: Option<Port>,
    /// Where in the user's code it was made.
    pub(crate) at: &'static Location<'static>,
}

impl Spec {
    /// A stateless operator with one input and one output, which has the times of its input.
    pub(crate) fn stateless(
        name: &'static str,
        input: Edge,
        at: &'static Location<'static>,
    ) -> Self {
        let (inputs, wants, times) = (vec![input], Wants::default(), Times::Kept);
        Spec { name, inputs, outputs: 1, wants, times, watermark: None, at }
    }
}

/// The edge from `port` that keeps rows on their worker.
pub(crate) fn pipeline(from: Port) -> Edge {
    Edge { from, exchange: Exchange::Pipeline }
}
