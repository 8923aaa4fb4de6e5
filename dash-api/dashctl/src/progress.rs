//! Progress of what takes longer than a second: on stderr, and only on a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Nothing is drawn before this, so that quick work stays silent.
const PATIENCE: Duration = Duration::from_secs(1);

/// A bar over work of known size, or a counter when it is not known. Draws nothing where stderr
/// is no terminal, nor in the first second.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    started: std::time::Instant,
    shown: bool,
}

impl Progress {
    /// Work of `total` units; 0 when the size is not known.
    pub fn new(what: &str, total: u64) -> Self {
        let bar = ProgressBar::with_draw_target(
            (total > 0).then_some(total),
            ProgressDrawTarget::hidden(),
        );
        let template = if total > 0 {
            "{msg} [{bar:30}] {human_pos}/{human_len} {eta}"
        } else {
            "{msg} {spinner} {human_pos} in {elapsed}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        Self {
            bar,
            started: std::time::Instant::now(),
            shown: false,
        }
    }

    /// Adds what was done.
    pub fn add(&mut self, units: u64) {
        self.bar.inc(units);
        if !self.shown && self.started.elapsed() > PATIENCE {
            self.shown = true;
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A spinner for one long step, shown after a second by a thread of its own.
#[derive(Debug)]
pub struct Spinner {
    stop: std::sync::mpsc::Sender<()>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Spinner {
    /// Starts waiting; `what` is shown beside it.
    pub fn new(what: &str) -> Self {
        let (stop, stopped) = std::sync::mpsc::channel();
        let what = what.to_owned();
        let thread = std::thread::spawn(move || {
            use std::sync::mpsc::RecvTimeoutError::Timeout;
            if stopped.recv_timeout(PATIENCE) != Err(Timeout) {
                return;
            }
            let bar = ProgressBar::new_spinner();
            bar.set_message(what);
            while stopped.recv_timeout(Duration::from_millis(100)) == Err(Timeout) {
                bar.tick();
            }
            bar.finish_and_clear();
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        // The thread may be gone already; either way it is joined.
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A line that says what is going on now, on a terminal only.
#[derive(Debug)]
pub struct Status(ProgressBar);

impl Status {
    /// Nothing is going on yet.
    pub fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// Says what is.
    pub fn say(&self, what: &str) {
        self.0.set_message(what.to_owned());
    }
}

impl Default for Status {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Status {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
