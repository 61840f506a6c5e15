//! The metrics of the process, with the names of Prometheus's client libraries. Only Linux has them, from `/proc`.

#[cfg(target_os = "linux")]
use procfs::{
    CurrentSI as _, ProcResult, WithCurrentSystemInfo as _,
    process::{LimitValue, Process},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};

/// Reads the metrics of this process whenever they are asked for.
#[derive(Debug)]
pub(super) struct ProcessMetrics;

/// The state of a process. Sizes are in bytes.
#[derive(Clone, Debug, PartialEq)]
struct Usage {
    cpu_seconds: f64,
    /// As seconds since 1970.
    started: f64,
    resident: u64,
    virtual_memory: u64,
    virtual_memory_limit: Option<u64>,
    open_files: usize,
    open_files_limit: Option<u64>,
}

impl Usage {
    /// Returns the state of this process, or an error if `/proc` is not mounted or shows something else.
    #[cfg(target_os = "linux")]
    fn read() -> ProcResult<Self> {
        let process = Process::myself()?;
        let (stat, limits) = (process.stat()?, process.limits()?);
        let ticks = procfs::ticks_per_second() as f64;
        let limit = |value: LimitValue| match value {
            LimitValue::Value(limit) => Some(limit),
            LimitValue::Unlimited => None,
        };
        let booted = procfs::KernelStats::current()?.btime;
        Ok(Self {
            cpu_seconds: (stat.utime + stat.stime) as f64 / ticks,
            started: booted as f64 + stat.starttime as f64 / ticks,
            resident: stat.rss_bytes().get(),
            virtual_memory: stat.vsize,
            virtual_memory_limit: limit(limits.max_address_space.soft_limit),
            open_files: process.fd_count()?,
            open_files_limit: limit(limits.max_open_files.soft_limit),
        })
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let mut gauge = |name: &str, help: &str, value: f64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        gauge("process_start_time_seconds", "When the process started, in seconds since 1970.", self.started)?;
        gauge("process_resident_memory_bytes", "Bytes of memory in use.", self.resident as f64)?;
        gauge("process_virtual_memory_bytes", "Bytes of address space in use.", self.virtual_memory as f64)?;
        // No limit is -1 in Prometheus's own library.
        let limit = self.virtual_memory_limit.map_or(-1.0, |limit| limit as f64);
        gauge("process_virtual_memory_max_bytes", "The limit of the address space, in bytes; -1 for none.", limit)?;
        gauge("process_open_fds", "Open files and connections.", self.open_files as f64)?;
        if let Some(limit) = self.open_files_limit {
            gauge("process_max_fds", "The limit of open files and connections.", limit as f64)?;
        }
        let cpu = ConstCounter::new(self.cpu_seconds);
        cpu.encode(encoder.encode_descriptor(
            "process_cpu_seconds",
            "Seconds of processor time that the process has used.",
            None,
            cpu.metric_type(),
        )?)
    }
}

impl Collector for ProcessMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        #[cfg(target_os = "linux")]
        if let Ok(usage) = Usage::read() {
            return usage.encode(&mut encoder);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text::encode, registry::Registry};

    use super::*;

    #[derive(Debug)]
    struct Known(Usage);

    impl Collector for Known {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
            self.0.encode(&mut encoder)
        }
    }

    fn shown(collector: impl Collector) -> String {
        let (mut registry, mut text) = (Registry::default(), String::new());
        registry.register_collector(Box::new(collector));
        encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn the_process_is_shown_by_the_names_of_prometheus() {
        let usage = Usage {
            cpu_seconds: 1.5,
            started: 1_790_000_000.25,
            resident: 20_000_000,
            virtual_memory: 300_000_000,
            virtual_memory_limit: None,
            open_files: 12,
            open_files_limit: Some(1024),
        };
        insta::assert_snapshot!(shown(Known(usage)), @r"
        # HELP process_start_time_seconds When the process started, in seconds since 1970.
        # TYPE process_start_time_seconds gauge
        process_start_time_seconds 1790000000.25
        # HELP process_resident_memory_bytes Bytes of memory in use.
        # TYPE process_resident_memory_bytes gauge
        process_resident_memory_bytes 20000000.0
        # HELP process_virtual_memory_bytes Bytes of address space in use.
        # TYPE process_virtual_memory_bytes gauge
        process_virtual_memory_bytes 300000000.0
        # HELP process_virtual_memory_max_bytes The limit of the address space, in bytes; -1 for none.
        # TYPE process_virtual_memory_max_bytes gauge
        process_virtual_memory_max_bytes -1.0
        # HELP process_open_fds Open files and connections.
        # TYPE process_open_fds gauge
        process_open_fds 12.0
        # HELP process_max_fds The limit of open files and connections.
        # TYPE process_max_fds gauge
        process_max_fds 1024.0
        # HELP process_cpu_seconds Seconds of processor time that the process has used.
        # TYPE process_cpu_seconds counter
        process_cpu_seconds_total 1.5
        # EOF
        ");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_read() {
        let usage = Usage::read().unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!(usage.started > now - 86_400.0 * 30.0 && usage.started <= now + 1.0, "{usage:?}");
        assert!(usage.resident > 1_000_000 && usage.virtual_memory >= usage.resident, "{usage:?}");
        assert!(usage.open_files >= 3 && usage.cpu_seconds >= 0.0, "{usage:?}");
        assert!(shown(ProcessMetrics).contains("process_cpu_seconds_total "));
    }
}
