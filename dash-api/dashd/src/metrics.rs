//! Prometheus: `/metrics` in the text format 0.0.4.
//!
//! Counters have their SAI names in lower case; those of ENIs have the label `eni`, those of metering
//! buckets `meter_class` too. Counters of
//! devices are samples of `dashwire_device_counter`, told apart by the labels `device` and `name`.

mod programs;

use std::fmt::Write as _;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use dash_engine::EngineError;
use dash_runtime::runtime::WorkerStats;
use nic_target::{Device, Link};
use serde_json::Value;

use crate::control::Control;
use crate::plane::Plane;

/// The endpoint.
pub fn router(control: Control) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .with_state(control)
}

async fn metrics(State(control): State<Control>) -> impl IntoResponse {
    let text = match control.call(text).await {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => {
            return (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response();
        }
        Err(status) => {
            let reason = status.message().to_owned();
            return (StatusCode::SERVICE_UNAVAILABLE, reason).into_response();
        }
    };
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        text,
    )
        .into_response()
}

fn text(plane: &mut Plane) -> Result<String, EngineError> {
    let mut out = String::new();
    let compile = plane.engine.compile_stats();
    let events = plane.engine.target().events();
    let workers = plane.engine.target().worker_stats();
    let stuck = plane.engine.target().stuck();
    let refused = plane.engine.target().refused_flows();
    let store = plane.engine.store();
    let rows: Vec<(String, u64)> = store
        .tables()
        .map(|(table, count)| (format!("{{table=\"{}\"}}", escape(table)), count as u64))
        .collect();
    let generation = plane.engine.generation();
    let neighbors = plane.neighbors() as u64;
    let flows = plane.engine.flow_count()? as u64;

    family(
        &mut out,
        "dashwire_generation",
        "gauge",
        "Generation of the configuration in force.",
        [("", generation)],
    );
    family(
        &mut out,
        "dashwire_rows",
        "gauge",
        "Configured rows by table.",
        rows.iter().map(|(l, n)| (l.as_str(), *n)),
    );
    family(
        &mut out,
        "dashwire_flows",
        "gauge",
        "Live connections.",
        [("", flows)],
    );
    family(
        &mut out,
        "dashwire_neighbors",
        "gauge",
        "Underlay neighbours, configured and learned.",
        [("", neighbors)],
    );
    for (name, help, value) in [
        (
            "dashwire_stages_verified_total",
            "Stages that the verifier judged.",
            compile.stages_verified,
        ),
        (
            "dashwire_stages_from_cache_total",
            "Stages whose verdict was known.",
            compile.stages_from_cache,
        ),
        (
            "dashwire_native_compiled_total",
            "Images compiled to machine code.",
            compile.native_compiled,
        ),
        (
            "dashwire_images_from_cache_total",
            "Images found by their shape.",
            compile.images_from_cache,
        ),
        (
            "dashwire_punts_dropped_total",
            "Packets for control that found no room.",
            events.punts_dropped,
        ),
        (
            "dashwire_aborted_total",
            "Packets that a program failed on.",
            events.aborted,
        ),
        (
            "dashwire_port_errors_total",
            "Failed receives and sends.",
            events.port_errors,
        ),
        (
            "dashwire_not_run_total",
            "Packets dropped because no code was installed.",
            events.not_run,
        ),
    ] {
        family(&mut out, name, "counter", help, [("", value)]);
    }
    if let Some(refused) = refused {
        family(
            &mut out,
            "dashwire_kernel_refused_flows_total",
            "counter",
            "Flow keys that the kernel had no room for: their packets go up to the worker.",
            [("", refused)],
        );
    }
    by_worker(&mut out, &workers, &stuck);
    sai(&mut out, &plane.engine.counters()?);
    programs::samples(&mut out, &plane.programs);
    devices(&mut out, &mut plane.devices);
    Ok(out)
}

/// Links, and counters under the names that devices give them.
fn devices(out: &mut String, devices: &mut [Box<dyn Device>]) {
    if devices.is_empty() {
        return;
    }
    let (mut up, mut gone, mut rates, mut counters) = (vec![], vec![], vec![], vec![]);
    for device in devices {
        let label = format!("device=\"{}\"", escape(device.name()));
        let link = device.link();
        up.push((
            format!("{{{label}}}"),
            u64::from(matches!(link, Link::Up(_))),
        ));
        gone.push((format!("{{{label}}}"), u64::from(link == Link::Gone)));
        if let Link::Up(Some(rate)) = link {
            rates.push((format!("{{{label}}}"), u64::from(rate)));
        }
        match device.xstats() {
            Ok(all) => counters.extend(all.into_iter().map(|(name, value)| {
                let name = escape(&name);
                (format!("{{{label},name=\"{name}\"}}"), value)
            })),
            // A device that is gone has none: the others' are given all the same.
            Err(error) => tracing::debug!(device = device.name(), %error, "no counters"),
        }
    }
    for (name, kind, help, samples) in [
        (
            "dashwire_link_up",
            "gauge",
            "1 while the device's link is up.",
            up,
        ),
        (
            "dashwire_device_gone",
            "gauge",
            "1 once the device is not there any more.",
            gone,
        ),
        (
            "dashwire_link_mbps",
            "gauge",
            "Rate of a link that is up and has one, Mbit/s.",
            rates,
        ),
        (
            "dashwire_device_counter",
            "counter",
            "Counters of the device's own, by the names it gives them.",
            counters,
        ),
    ] {
        let samples = samples.iter().map(|(labels, n)| (labels.as_str(), *n));
        family(out, name, kind, help, samples);
    }
}

/// What each worker did.
fn by_worker(out: &mut String, workers: &[WorkerStats], stuck: &[usize]) {
    let labels: Vec<String> = (0..workers.len())
        .map(|worker| format!("{{worker=\"{worker}\"}}"))
        .collect();
    let silent = (0..workers.len()).map(|worker| u64::from(stuck.contains(&worker)));
    let samples = labels.iter().map(String::as_str).zip(silent);
    family(
        out,
        "dashwire_worker_stuck",
        "gauge",
        "1 while the worker has not gone round for a second.",
        samples,
    );
    let late = workers.iter().map(|worker| worker.ageing_late_ns);
    let samples = labels.iter().map(String::as_str).zip(late);
    family(
        out,
        "dashwire_worker_ageing_late_nanoseconds",
        "gauge",
        "How long flows that are due have waited to be taken away.",
        samples,
    );
    type Number = fn(&WorkerStats) -> u64;
    let counters: [(&str, &str, Number); 6] = [
        (
            "dashwire_worker_packets_total",
            "Packets the worker received.",
            |worker| worker.packets,
        ),
        (
            "dashwire_worker_handed_total",
            "Packets the worker gave to the worker that has their flow.",
            |worker| worker.handed,
        ),
        (
            "dashwire_worker_taken_total",
            "Packets the worker ran for others.",
            |worker| worker.taken,
        ),
        (
            "dashwire_worker_handoff_drops_total",
            "Packets dropped because the worker that has their flow had no room.",
            |worker| worker.handoff_drops,
        ),
        (
            "dashwire_worker_busy_rounds_total",
            "Rounds that received or sent something.",
            |worker| worker.busy_rounds,
        ),
        (
            "dashwire_worker_idle_rounds_total",
            "Rounds that found nothing to do.",
            |worker| worker.idle_rounds,
        ),
    ];
    for (name, help, number) in counters {
        let samples = labels
            .iter()
            .map(String::as_str)
            .zip(workers.iter().map(number));
        family(out, name, "counter", help, samples);
    }
}

/// Counters as `Engine::counters` gives them.
fn sai(out: &mut String, counters: &Value) {
    if let Some(port) = counters["port"].as_object() {
        for (name, value) in port {
            let value = value.as_u64().unwrap_or(0);
            family(out, &name.to_lowercase(), "counter", name, [("", value)]);
        }
    }
    meters(out, &counters["meter"]);
    let Some(enis) = counters["eni"].as_object() else {
        return;
    };
    // Samples of one name must stand together.
    let Some(names) = enis.values().next().and_then(Value::as_object) else {
        return;
    };
    let labels: Vec<String> = enis
        .keys()
        .map(|key| format!("{{eni=\"{}\"}}", escape(key)))
        .collect();
    for name in names.keys() {
        let values = enis.values().map(|eni| eni[name].as_u64().unwrap_or(0));
        let samples = labels.iter().map(String::as_str).zip(values);
        family(out, &name.to_lowercase(), "counter", name, samples);
    }
}

/// Metering buckets: an ENI and a class each.
fn meters(out: &mut String, buckets: &Value) {
    let Some(buckets) = buckets.as_array().filter(|buckets| !buckets.is_empty()) else {
        return;
    };
    let labels: Vec<String> = buckets
        .iter()
        .map(|bucket| {
            let eni = escape(bucket["eni"].as_str().unwrap_or_default());
            format!(
                "{{eni=\"{eni}\",meter_class=\"{}\"}}",
                bucket["meter_class"]
            )
        })
        .collect();
    let names = buckets[0].as_object().into_iter().flat_map(|o| o.keys());
    for name in names.filter(|name| name.starts_with("SAI_")) {
        let values = buckets.iter().map(|b| b[name].as_u64().unwrap_or(0));
        let samples = labels.iter().map(String::as_str).zip(values);
        family(out, &name.to_lowercase(), "counter", name, samples);
    }
}

fn family<'a>(
    out: &mut String,
    name: &str,
    kind: &str,
    help: &str,
    samples: impl IntoIterator<Item = (&'a str, u64)>,
) {
    // Writing to a String does not fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (labels, value) in samples {
        let _ = writeln!(out, "{name}{labels} {value}");
    }
}

/// A label's value between its quotes.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake(&'static str, Link, Option<u64>);

    impl Device for Fake {
        fn name(&self) -> &str {
            self.0
        }
        fn mac(&self) -> [u8; 6] {
            [2; 6]
        }
        fn link(&mut self) -> Link {
            self.1
        }
        fn xstats(&mut self) -> std::io::Result<Vec<(String, u64)>> {
            let value = self.2.ok_or(std::io::ErrorKind::NotFound)?;
            Ok(vec![("rx \"good\"".to_owned(), value)])
        }
    }

    #[test]
    fn devices_have_their_links_and_counters_and_one_without_does_no_harm() {
        let mut out = String::new();
        devices(&mut out, &mut []);
        assert_eq!(out, "");
        let mut all: Vec<Box<dyn Device>> = vec![
            Box::new(Fake("a", Link::Up(Some(100)), Some(7))),
            Box::new(Fake("b", Link::Gone, None)),
            Box::new(Fake("c", Link::Down, Some(0))),
        ];
        devices(&mut out, &mut all);
        let lines: Vec<&str> = out.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                "dashwire_link_up{device=\"a\"} 1",
                "dashwire_link_up{device=\"b\"} 0",
                "dashwire_link_up{device=\"c\"} 0",
                "dashwire_device_gone{device=\"a\"} 0",
                "dashwire_device_gone{device=\"b\"} 1",
                "dashwire_device_gone{device=\"c\"} 0",
                "dashwire_link_mbps{device=\"a\"} 100",
                "dashwire_device_counter{device=\"a\",name=\"rx \\\"good\\\"\"} 7",
                "dashwire_device_counter{device=\"c\",name=\"rx \\\"good\\\"\"} 0",
            ]
        );
    }

    #[test]
    fn samples_of_one_name_stand_together_under_their_labels() {
        let mut out = String::new();
        sai(
            &mut out,
            &serde_json::json!({
                "eni": {"a\"b": {"SAI_ENI_STAT_RX_BYTES": 1}, "c": {"SAI_ENI_STAT_RX_BYTES": 2}},
                "port": {"SAI_PORT_STAT_IF_IN_OCTETS": 3},
                "meter": [
                    {"eni": "a\"b", "meter_class": 7, "SAI_METER_BUCKET_ENTRY_STAT_OUTBOUND_BYTES": 8},
                    {"eni": "c", "meter_class": 9, "SAI_METER_BUCKET_ENTRY_STAT_OUTBOUND_BYTES": 0},
                ],
            }),
        );
        let lines: Vec<&str> = out.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                "sai_port_stat_if_in_octets 3",
                "sai_meter_bucket_entry_stat_outbound_bytes{eni=\"a\\\"b\",meter_class=\"7\"} 8",
                "sai_meter_bucket_entry_stat_outbound_bytes{eni=\"c\",meter_class=\"9\"} 0",
                "sai_eni_stat_rx_bytes{eni=\"a\\\"b\"} 1",
                "sai_eni_stat_rx_bytes{eni=\"c\"} 2",
            ]
        );
    }
}
