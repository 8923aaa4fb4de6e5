//! What each command does.

mod bench;
mod compile;
mod coverage;
mod feature;
mod flow;
mod gnmi;
mod link;
mod map;
mod observe;
mod prog;
mod programs;
mod remote;
mod replay;
mod scenario;
mod settings;
mod show;
mod trace;

use std::process::ExitCode;

use anyhow::{Context, Result};
use dash_engine::{Engine, Options};
use dash_model::StoreOptions;
use dash_pipeline::plan::Settings;
use dashctl::engines::{EngineName, start};
use dashctl::progress::Spinner;
use dashctl::{config, underlay};
use nic_target::PacketEngine;

use crate::cli::{Cli, Command, Setup};

pub(crate) fn run(cli: Cli) -> Result<ExitCode> {
    let done = match cli.command {
        Command::Replay(args) => replay::run(&args),
        Command::Trace(args) => trace::run(&args),
        Command::Compile(args) => compile::run(&args),
        Command::Push(args) => gnmi::push(&args),
        Command::Get(args) => gnmi::get(&args),
        Command::Inject(args) => observe::inject(&args),
        Command::Counters(args) => observe::counters(&args),
        Command::Flows(args) => observe::flows(&args),
        Command::Show(args) => show::run(&args),
        Command::Flow { command } => flow::run(&command),
        Command::Eni { command } => settings::eni(&command),
        Command::RouteGroup { command } => settings::route_group(&command),
        Command::Scenario(args) => scenario::run(&args),
        Command::Coverage(args) => return coverage::run(&args),
        Command::Bench(args) => {
            // What is measured is what `dashd` does.
            dashctl::pages::ask_for_large_pages();
            bench::run(&args)
        }
        Command::Prog { command } => return prog::run(&command),
        Command::Map { command, output } => map::run(&command, output),
        Command::Link { command, output } => link::run(&command, output),
        Command::Feature { command, output } => feature::run(&command, output),
    };
    done.map(|()| ExitCode::SUCCESS)
}

impl Setup {
    fn options(&self, engine: EngineName) -> Options {
        Options {
            settings: self.life.settings(Settings {
                vxlan_port: self.vxlan_port,
                encap_ttl: self.encap_ttl,
                sport_base: self.sport_base,
                sport_bits: self.sport_bits,
                drop_unmapped_ports: self.drop_unmapped_ports,
                sport_security: self.vxlan_security,
                mtu: self.mtu,
                dscp_pipe: self.dscp_pipe,
                ..Settings::default()
            }),
            capacity: engine.capacity(),
            judge: self.proof.verifier,
            cache_dir: self.proof.path(),
            native: engine == EngineName::Native,
            store: StoreOptions {
                update_bound_groups: self.update_bound_groups,
                strict: self.strict,
            },
        }
    }

    /// Brings the configuration and the underlay into an engine that started.
    fn configure<T: nic_target::Target + ?Sized>(&self, engine: &mut Engine<T>) -> Result<()> {
        config::commit_files(engine, &self.configs)?;
        if !(self.routes.is_empty() && self.neighbors.is_empty()) {
            let underlay = underlay::table(&self.routes, &self.neighbors);
            engine.set_underlay(underlay).context("underlay")?;
        }
        Ok(())
    }

    /// An engine with the configuration and the underlay.
    fn engine(&self, name: EngineName) -> Result<Engine<dyn PacketEngine>> {
        let _spinner = Spinner::new("compiling and verifying");
        let mut engine = start(name, self.options(name))?;
        self.configure(&mut engine)?;
        Ok(engine)
    }
}
