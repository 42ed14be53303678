//! The door of a process: takes connections for as long as the process lives, and reads who each is from.
//!
//! Whoever knocks and says nothing, or rubbish, holds nobody up: every connection has a thread of its own until it has introduced itself.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use highwater_env::Env;

use super::link::{Event, prepare};
use super::messages;

/// So long a connection may take to introduce itself.
const GREETING: Duration = Duration::from_secs(5);

/// Has everybody who knocks and introduces himself reported as an event.
pub(super) fn open(env: &Arc<dyn Env>, listener: TcpListener, events: Sender<Event>) {
    let threads = env.clone();
    let accept = move || {
        for stream in listener.incoming() {
            // Too many open files, a connection that was given up: the next one may be better.
            let Ok(mut stream) = stream else {
                std::thread::sleep(Duration::from_millis(10));
                continue;
            };
            let events = events.clone();
            let greet = move || {
                let greeting = prepare(&stream)
                    .and_then(|()| stream.set_read_timeout(Some(GREETING)))
                    .and_then(|()| messages::read(&mut stream));
                match greeting {
                    Ok(greeting) => {
                        events.send(Event::Knocked(greeting, stream)).ok();
                    }
                    Err(error) => {
                        let from = stream
                            .peer_addr()
                            .map_or_else(|_| "somebody".to_owned(), |address| address.to_string());
                        tracing::warn!(from, %error, "a connection from none of ours");
                    }
                }
            };
            threads.spawn_thread("greet", Box::new(greet));
        }
    };
    env.spawn_thread("door", Box::new(accept));
}
