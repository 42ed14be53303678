//! The side of the process that runs an attempt: what it is told, and what it reports.

use std::io::BufReader;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use highwater_env::Env;
use highwater_runtime::cluster::Place;
use highwater_runtime::{Control, Outcome};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::messages::{self, Begin, Order, SOCKET_VARIABLE, Sort, Word};
use crate::{Options, Result};

/// How often is looked whether a checkpoint was committed.
const PROGRESS: Duration = Duration::from_millis(100);

/// The status of a process whose supervisor is gone.
const ORPHANED: i32 = 75;

/// The supervisor of this process, if it has one.
static SUPERVISOR: OnceLock<Supervisor> = OnceLock::new();

/// The connection to the supervisor.
pub(crate) struct Supervisor {
    stream: Mutex<UnixStream>,
    steering: Arc<Mutex<Steering>>,
}

#[derive(Default)]
struct Steering {
    control: Option<Control>,
    stop: bool,
}

impl Supervisor {
    /// The supervisor, if this process was started by one; connects at the first call.
    pub(crate) fn of_this_process() -> Result<Option<&'static Supervisor>> {
        if let Some(supervisor) = SUPERVISOR.get() {
            return Ok(Some(supervisor));
        }
        let Some(socket) = std::env::var_os(SOCKET_VARIABLE) else { return Ok(None) };
        let stream = Mutex::new(UnixStream::connect(socket)?);
        Ok(Some(SUPERVISOR.get_or_init(|| Supervisor { stream, steering: Arc::default() })))
    }

    /// Says that this process is there, and waits for the order to begin. Signals are the supervisor's from here on: it tells its
    /// processes to stop, so that it doesn't matter whether a signal went to one of them or to all.
    pub(crate) fn begin(
        &self,
        options: &Options,
        env: &Arc<dyn Env>,
    ) -> Result<(Begin, Option<Place>)> {
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::default())?;
        }
        let alone = options.hosts.is_some() || options.processes == 1;
        let door = if alone { None } else { Some(env.network()?.listen("127.0.0.1:0")?) };
        let address = door.as_ref().map(|door| door.address()).transpose()?;
        self.say(&Word::Here { address });
        let mut orders = BufReader::new(self.lock().try_clone()?);
        let Some(Order::Begin(begin)) = messages::read(&mut orders) else {
            std::process::exit(ORPHANED);
        };
        let steering = self.steering.clone();
        let listen = move || {
            loop {
                match messages::read(&mut orders) {
                    Some(Order::Stop) => {
                        let mut steering = steering.lock().unwrap_or_else(PoisonError::into_inner);
                        steering.stop = true;
                        if let Some(control) = &steering.control {
                            control.stop();
                        }
                    }
                    Some(Order::Relax) => {
                        let steering = steering.lock().unwrap_or_else(PoisonError::into_inner);
                        steering.control.iter().for_each(Control::relax);
                    }
                    Some(Order::Begin(_)) => {}
                    // The supervisor is gone. Nothing committed is lost, and whoever starts the job again is in charge.
                    None => std::process::exit(ORPHANED),
                }
            }
        };
        env.spawn_thread("supervisor", Box::new(listen));
        let place = match (&begin.hosts, door) {
            (Some(hosts), Some(door)) => {
                Some(Place::with_door(begin.process, hosts.clone(), door)?)
            }
            _ => options.place(&**env)?,
        };
        Ok((begin, place))
    }

    /// Gives the attempt into the supervisor's hands.
    pub(crate) fn steer(&'static self, control: &Control) {
        {
            let mut steering = self.steering.lock().unwrap_or_else(PoisonError::into_inner);
            steering.control = Some(control.clone());
            if steering.stop {
                control.stop();
            }
        }
        self.say(&Word::Begun);
        // A careful attempt waits for the supervisor to know, and is slow anyway: one write to a socket on this machine.
        control.on_suspect(|span| self.say(&Word::Suspect(span.clone())));
        let control = control.clone();
        let env = control.env().clone();
        let task = async move {
            let mut seen = 0;
            while !control.is_over() {
                let checkpoints = control.observed().checkpoints();
                if checkpoints > seen {
                    seen = checkpoints;
                    self.say(&Word::Progress { records: control.observed().records_in() });
                }
                control.env().sleep(PROGRESS).await;
            }
        };
        env.spawn("progress of checkpoints", Box::pin(task));
    }

    /// Reports how the attempt went, and ends the process: what stands behind `run` in the program is done by the supervisor alone.
    pub(crate) fn end(&self, result: Result<Outcome>) -> ! {
        let status = match result {
            Ok(outcome) => {
                self.say(&Word::Ended(outcome));
                0
            }
            Err(error) => {
                let sort = error.engine().map_or(Sort::Final, Sort::of);
                self.failed(sort, error.to_string());
                1
            }
        };
        std::process::exit(status)
    }

    /// Reports a panic, before the process aborts.
    pub(crate) fn panicked(message: &str) {
        if let Some(supervisor) = SUPERVISOR.get() {
            supervisor.failed(Sort::OfTheJob, message.to_owned());
        }
    }

    fn failed(&self, sort: Sort, why: String) {
        // Whoever panicked may hold the lock.
        let records = self.steering.try_lock().ok().and_then(|steering| {
            steering.control.as_ref().map(|control| control.observed().records_in())
        });
        self.say(&Word::Failed { sort, why, records: records.unwrap_or_default() });
    }

    fn say(&self, word: &Word) {
        // A supervisor that is gone is noticed by the thread that listens to it.
        messages::write(&mut *self.lock(), word).ok();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, UnixStream> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
