//! Listeners, the services on them, start and stop.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, bail};
use dash_proto::dashwire::v1::flow_control_server::FlowControlServer;
use dash_proto::dashwire::v1::observe_server::ObserveServer;
use dash_proto::dashwire::v1::programs_server::ProgramsServer;
use dash_proto::dashwire::v1::settings_server::SettingsServer;
use dash_proto::dashwire::v1::simulator_server::SimulatorServer;
use dash_proto::gnmi::g_nmi_server::GNmiServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use crate::args::Args;
use crate::control::{Control, Ended};
use crate::flow_control::FlowControl;
use crate::gnmi::Gnmi;
use crate::metrics;
use crate::observe::Observe;
use crate::plane::Plane;
use crate::programs::service::Programs;
use crate::settings::Settings;
use crate::simulator::Simulator;

/// Longest message taken: a Set of hundreds of thousands of rows.
const MAX_MESSAGE: usize = 64 << 20;
/// How long open calls may go on once the server stops.
const GRACE: Duration = Duration::from_secs(2);

/// A daemon that serves.
#[derive(Debug)]
pub struct Server {
    gnmi: Vec<SocketAddr>,
    metrics: Option<SocketAddr>,
    control: Control,
    ended: Ended,
    stop: watch::Sender<bool>,
    tasks: JoinSet<Result<()>>,
}

impl Server {
    /// Opens the target, applies the configuration files, binds and serves.
    ///
    /// # Errors
    /// Anything of the command line cannot be had; nothing is left running.
    pub async fn start(args: Args) -> Result<Self> {
        check_clear(&args)?;
        let tls = tls(&args)?;
        // Bound first, so that a taken address is known before seconds of compiling, and served
        // last, so that who connects finds the configuration in.
        let mut listeners = Vec::new();
        for address in &args.listen {
            listeners.push(bind("--listen", *address).await?);
        }
        let scraped = match args.metrics {
            Some(address) => Some(bind("--metrics", address).await?),
            None => None,
        };
        let for_plane = args.clone();
        let (control, ended, sim) = Control::start(move || Plane::open(&for_plane)).await?;
        let simulator = Simulator::new(control.clone(), sim);
        let services = services(&control, &args, simulator).await?;

        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let mut gnmi = Vec::new();
        for listener in listeners {
            gnmi.push(listener.local_addr()?);
            let mut server = tonic::transport::Server::builder();
            if let Some(tls) = &tls {
                server = server.tls_config(tls.clone()).context("TLS")?;
            }
            let router = server.add_routes(services.clone());
            let incoming = TcpListenerStream::new(listener);
            let until = told(stopped.clone());
            tasks.spawn(async move {
                router
                    .serve_with_incoming_shutdown(incoming, until)
                    .await
                    .context("gNMI server")
            });
        }
        let mut metrics_address = None;
        if let Some(listener) = scraped {
            metrics_address = Some(listener.local_addr()?);
            let app = metrics::router(control.clone());
            let until = told(stopped.clone());
            tasks.spawn(async move {
                let served = axum::serve(listener, app)
                    .with_graceful_shutdown(until)
                    .await;
                served.context("metrics server")
            });
        }
        tracing::info!(target = %args.target, engine = args.engine.as_str(), "serving");
        Ok(Self {
            gnmi,
            metrics: metrics_address,
            control,
            ended,
            stop,
            tasks,
        })
    }

    /// Addresses of the gNMI server, in the order asked for.
    pub fn gnmi(&self) -> &[SocketAddr] {
        &self.gnmi
    }

    /// Address of the Prometheus endpoint.
    pub fn metrics(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// The data plane.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Resolves only when something ended that should not have.
    pub async fn failed(&mut self) -> Error {
        tokio::select! {
            _ = &mut self.ended => anyhow!("the control thread panicked"),
            Some(task) = self.tasks.join_next() => match task {
                Ok(Ok(())) => anyhow!("a server ended"),
                Ok(Err(error)) => error,
                Err(error) => anyhow!(error).context("a server panicked"),
            },
        }
    }

    /// Takes no more calls, lets open ones end for a while, then stops the data plane; capture
    /// files are complete afterwards.
    pub async fn stop(mut self) {
        // No receiver: every server has ended already.
        let _ = self.stop.send(true);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, all).await.is_err() {
            self.tasks.shutdown().await;
        }
        drop(self.control);
        // Calls that were cut off may hold the control thread for the length of their job.
        let _ = tokio::time::timeout(GRACE, self.ended).await;
    }
}

/// Configuration in the clear, without any authentication, stays on this machine.
fn check_clear(args: &Args) -> Result<()> {
    if !args.no_tls {
        return Ok(());
    }
    match args
        .listen
        .iter()
        .find(|address| !address.ip().is_loopback())
    {
        Some(address) => {
            bail!("--no-tls is for loopback addresses only: --listen {address} is not")
        }
        None => Ok(()),
    }
}

fn tls(args: &Args) -> Result<Option<ServerTlsConfig>> {
    let read = |path: &Path| {
        std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let (Some(cert), Some(key)) = (&args.tls_cert, &args.tls_key) else {
        return Ok(None);
    };
    let mut tls = ServerTlsConfig::new().identity(Identity::from_pem(read(cert)?, read(key)?));
    if let Some(ca) = &args.tls_client_ca {
        tls = tls.client_ca_root(Certificate::from_pem(read(ca)?));
    }
    Ok(Some(tls))
}

async fn bind(option: &str, address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("{option} {address}"))
}

/// Resolves when the server is told to stop, or is gone.
async fn told(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

async fn services(control: &Control, args: &Args, simulator: Simulator) -> Result<Routes> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<GNmiServer<Gnmi>>().await;
    health.set_serving::<ObserveServer<Observe>>().await;
    health.set_serving::<FlowControlServer<FlowControl>>().await;
    health.set_serving::<SettingsServer<Settings>>().await;
    health.set_serving::<SimulatorServer<Simulator>>().await;
    health.set_serving::<ProgramsServer<Programs>>().await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(dash_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let gnmi = GNmiServer::new(Gnmi::new(control.clone()))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let observe = ObserveServer::new(Observe::new(control.clone(), args))
        .max_encoding_message_size(MAX_MESSAGE);
    let flow_control = FlowControlServer::new(FlowControl::new(control.clone()));
    let programs = ProgramsServer::new(Programs::new(control.clone(), args))
        .max_decoding_message_size(MAX_MESSAGE);
    let mut routes = Routes::builder();
    routes
        .add_service(health_service)
        .add_service(reflection().build_v1().context("reflection")?)
        .add_service(reflection().build_v1alpha().context("reflection")?)
        .add_service(gnmi)
        .add_service(observe)
        .add_service(flow_control)
        .add_service(programs)
        .add_service(SettingsServer::new(Settings::new(control.clone())))
        .add_service(SimulatorServer::new(simulator));
    Ok(routes.routes())
}
