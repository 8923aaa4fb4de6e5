//! The service `dashwire.v1.Simulator`: the far side of a simulated NIC.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use dash_proto::dashwire::v1 as wire;
use dash_proto::dashwire::v1::simulator_server::Simulator as Service;
use nic_sim::port::{InjectError, Sent, SimHandle};
use tokio::sync::{Mutex, mpsc};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::control::Control;

/// Frames on their way into the NIC; its queues hold more.
const IN_FLIGHT: u64 = 512;
/// Answers that wait for the client.
const ANSWERS: usize = 256;
/// How long to look without sleeping at a worker that has frames.
const SPINS: u32 = 200;
const NAP: Duration = Duration::from_millis(1);
/// Naps after which the worker is asked whether it lives.
const NAPS: u32 = 100;

/// The service.
#[derive(Clone, Debug)]
pub struct Simulator {
    control: Control,
    nic: Option<Arc<Mutex<Nic>>>,
}

impl Simulator {
    /// A service over the NIC, where the target is one.
    pub fn new(control: Control, sim: Option<SimHandle>) -> Self {
        let nic = sim.map(|sim| {
            Arc::new(Mutex::new(Nic {
                sim,
                injected: 0,
                clock_ns: 0,
            }))
        });
        Self { control, nic }
    }
}

type Answers = mpsc::Sender<Result<wire::InjectResponse, Status>>;

/// The NIC with what outlives a call.
#[derive(Debug)]
struct Nic {
    sim: SimHandle,
    /// Frames put in since the start.
    injected: u64,
    /// Of the last frame that came out.
    clock_ns: u64,
}

#[tonic::async_trait]
impl Service for Simulator {
    type InjectStream = Pin<Box<dyn Stream<Item = Result<wire::InjectResponse, Status>> + Send>>;

    async fn inject(
        &self,
        request: Request<Streaming<wire::InjectRequest>>,
    ) -> Result<Response<Self::InjectStream>, Status> {
        let nic = self.nic.clone().ok_or_else(|| {
            Status::failed_precondition(
                "the target is not a simulator: start dashd with --target sim:",
            )
        })?;
        let control = self.control.clone();
        let (answers, out) = mpsc::channel(ANSWERS);
        tokio::spawn(async move {
            let mut nic = nic.lock().await;
            let outcome = session(&mut nic, &control, request.into_inner(), &answers).await;
            if let Err(status) = outcome {
                // Who injects may be gone.
                let _ = answers.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(out))))
    }
}

async fn session(
    nic: &mut Nic,
    control: &Control,
    mut frames: Streaming<wire::InjectRequest>,
    answers: &Answers,
) -> Result<(), Status> {
    let mut last_port = None;
    loop {
        let frame = tokio::select! {
            biased;
            frame = frames.message() => frame?,
            () = tokio::time::sleep(NAP) => {
                nic.drain(answers).await?;
                continue;
            }
        };
        let Some(frame) = frame else { break };
        // Ports are served in turn, so a frame of another port waits for those before it.
        let room = if last_port == Some(frame.port) {
            IN_FLIGHT
        } else {
            1
        };
        nic.wait_below(room, control, answers).await?;
        last_port = Some(frame.port);
        let port = u16::try_from(frame.port)
            .map_err(|_| Status::invalid_argument(format!("there is no port {}", frame.port)))?;
        match nic.sim.inject_at(port, frame.timestamp_ns, &frame.frame) {
            Ok(()) => nic.injected += 1,
            Err(error @ (InjectError::NoPort { .. } | InjectError::TooLong { .. })) => {
                return Err(Status::invalid_argument(error.to_string()));
            }
            Err(error) => return Err(Status::unavailable(error.to_string())),
        }
    }
    nic.wait_below(1, control, answers).await?;
    let settled = control.call(|plane| plane.settle()).await?;
    settled.map_err(|error| Status::unavailable(error.to_string()))?;
    nic.drain(answers).await
}

impl Nic {
    /// Waits until fewer than `room` frames lie in the ports' queues.
    async fn wait_below(
        &mut self,
        room: u64,
        control: &Control,
        answers: &Answers,
    ) -> Result<(), Status> {
        let mut rounds: u32 = 0;
        while self.queued() >= room {
            self.drain(answers).await?;
            rounds = rounds.wrapping_add(1);
            if rounds < SPINS {
                tokio::task::yield_now().await;
                continue;
            }
            tokio::time::sleep(NAP).await;
            if rounds.is_multiple_of(NAPS) {
                // Fails when there is nobody to take the frames.
                let alive = control.call(|plane| plane.engine.counters()).await?;
                alive.map_err(|error| Status::unavailable(error.to_string()))?;
            }
        }
        Ok(())
    }

    /// Frames that the worker has not taken yet.
    fn queued(&self) -> u64 {
        let counters = (0..self.sim.ports()).filter_map(|port| self.sim.counters(port));
        self.injected
            .saturating_sub(counters.map(|c| c.received).sum())
    }

    /// Hands over what the NIC sent.
    async fn drain(&mut self, answers: &Answers) -> Result<(), Status> {
        while let Some(Sent {
            port,
            timestamp_ns,
            data,
        }) = self.sim.collect()
        {
            // What control sends has no time of its own.
            self.clock_ns = self.clock_ns.max(timestamp_ns);
            let answer = wire::InjectResponse {
                port: port.into(),
                timestamp_ns: self.clock_ns,
                frame: data,
            };
            answers
                .send(Ok(answer))
                .await
                .map_err(|_| Status::cancelled("the client is gone"))?;
        }
        Ok(())
    }
}
