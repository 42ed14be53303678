//! The door of a process: takes connections for as long as the process lives, and reads who each is from.
//!
//! Whoever knocks and says nothing, or rubbish, holds nobody up: every connection has a task of its own until it has introduced itself.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use highwater_env::{Connection, Door, Network};
use tokio::sync::mpsc::UnboundedSender;

use super::link::Event;
use super::{SILENCE, messages, within};

/// So long a connection may take to introduce itself.
const GREETING: Duration = Duration::from_secs(5);

/// Has everybody who knocks and introduces himself reported as an event.
pub(super) fn open(
    network: &Arc<dyn Network>,
    mut door: Box<dyn Door>,
    events: UnboundedSender<Event>,
) {
    let inside = network.clone();
    let accept = async move {
        loop {
            match poll_fn(|context| door.poll_accept(context)).await {
                Ok(connection) => {
                    let greet = greet(inside.clone(), connection, events.clone());
                    inside.spawn("greet", Box::pin(greet));
                }
                // Too many open files, a connection that was given up: the next one may be better.
                Err(_) => inside.sleep(Duration::from_millis(10)).await,
            }
        }
    };
    network.spawn("door", Box::pin(accept));
}

async fn greet(
    network: Arc<dyn Network>,
    mut connection: Box<dyn Connection>,
    events: UnboundedSender<Event>,
) {
    match messages::read(&*network, GREETING, &mut connection).await {
        Ok(greeting) => {
            events.send(Event::Knocked(greeting, connection)).ok();
        }
        Err(error) => {
            let from = connection.peer();
            tracing::warn!(from, %error, "a connection from none of ours");
        }
    }
}

/// Sends whoever has knocked away, with this answer.
pub(super) fn answer(
    network: &Arc<dyn Network>,
    mut connection: Box<dyn Connection>,
    answer: messages::Signal,
) {
    use tokio::io::AsyncWriteExt;
    let inside = network.clone();
    let say = async move {
        if messages::write(&*inside, &mut connection, &answer).await.is_ok() {
            within(&*inside, SILENCE, connection.shutdown()).await;
        }
    };
    network.spawn("answer", Box::pin(say));
}
