//! The thread that owns the engine, and how everybody else asks it.
//!
//! A job is a closure over the [`Plane`]; jobs run one after another, whole. Between jobs the
//! thread serves what the data plane punts, so a neighbour is answered while nobody asks anything.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::sync::oneshot;
use tonic::Status;

use crate::plane::Plane;

/// How long a punted packet may wait for control while no job comes.
const POLL: Duration = Duration::from_millis(2);

type Job = Box<dyn FnOnce(&mut Plane) + Send>;

/// Sends jobs to the thread that owns the [`Plane`]. The thread ends when the last one is gone.
#[derive(Clone, Debug)]
pub struct Control {
    jobs: Sender<Job>,
}

/// Resolves when the control thread has ended and given everything back.
pub type Ended = oneshot::Receiver<()>;

impl Control {
    /// Starts the thread; `open` makes the plane on it, with something for the caller.
    ///
    /// # Errors
    /// Those of `open`, or the system gives no thread.
    pub async fn start<T: Send + 'static>(
        open: impl FnOnce() -> Result<(Plane, T)> + Send + 'static,
    ) -> Result<(Self, Ended, T)> {
        let (jobs, inbox) = channel();
        let (opened, is_open) = oneshot::channel();
        let (ending, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name("dash-control".to_owned())
            .spawn(move || {
                let mut plane = match open() {
                    Ok((plane, extra)) => {
                        // Who waits may have been cancelled; then the jobs' senders are gone too.
                        let _ = opened.send(Ok(extra));
                        plane
                    }
                    Err(error) => {
                        let _ = opened.send(Err(error));
                        return;
                    }
                };
                run(&mut plane, &inbox);
                // Stops the worker and closes its ports before anybody is told.
                drop(plane);
                let _ = ending.send(());
            })
            .context("starting the control thread")?;
        let extra = is_open
            .await
            .map_err(|_| anyhow!("the control thread panicked"))??;
        Ok((Self { jobs }, ended, extra))
    }

    /// Runs a job on the control thread.
    ///
    /// # Errors
    /// `UNAVAILABLE` when the thread has ended.
    pub async fn call<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Plane) -> R + Send + 'static,
    ) -> Result<R, Status> {
        let gone = || Status::unavailable("dashd is stopping");
        let (answer, answered) = oneshot::channel();
        let job = move |plane: &mut Plane| {
            // Who asked may be gone.
            let _ = answer.send(job(plane));
        };
        self.jobs.send(Box::new(job)).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())
    }
}

fn run(plane: &mut Plane, inbox: &Receiver<Job>) {
    loop {
        match inbox.recv_timeout(POLL) {
            Ok(job) => job(plane),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        plane.serve_punts();
        plane.watch();
        plane.watch_flows();
    }
}
