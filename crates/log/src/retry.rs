//! When something that failed is tried again.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use highwater_env::Env;

/// How often something is tried, and how long is waited between.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// How often in all.
    pub tries: u32,
    /// The first delay; each one is twice as long as the one before.
    pub first: Duration,
    /// The longest delay.
    pub longest: Duration,
}

impl Default for Retry {
    /// Gives up after about eight seconds of delays.
    fn default() -> Self {
        let (first, longest) = (Duration::from_millis(20), Duration::from_secs(2));
        Retry { tries: 10, first, longest }
    }
}

impl Retry {
    /// For what is repeated for as long as it takes.
    pub const fn endless(first: Duration, longest: Duration) -> Self {
        Retry { tries: u32::MAX, first, longest }
    }

    /// The delays between the tries, each between half of what it should be and all, so that many workers don't come back at the same
    /// instant.
    pub fn delays(&self, env: &dyn Env) -> impl Iterator<Item = Duration> + Send + use<> {
        let builder = ExponentialBuilder::new()
            .with_factor(2.0)
            .with_min_delay(self.first)
            .with_max_delay(self.longest)
            .with_max_times(self.tries.saturating_sub(1) as usize)
            .with_jitter()
            .with_jitter_seed(env.random());
        let delays: ExponentialBackoff = builder.build();
        // Its jitter makes delays up to twice as long.
        delays.map(|delay| delay / 2)
    }
}
