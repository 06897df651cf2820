//! A group's traffic with block devices: its weight, and rates for each device (cgroup-v2.rst, IO;
//! blkio-controller.rst for version 1).

use std::collections::BTreeMap;
use std::path::Path;

use oci_spec::runtime::{LinuxBlockIo, LinuxResources, LinuxThrottleDevice};

use super::limit::write;

/// Where a weight goes, and whether it is in the scale of version 2 (1 to 10000): only schedulers
/// that the kernel was built with have a file.
const WEIGHT: [(&str, bool); 4] = [
    ("blkio.bfq.weight", false),
    ("blkio.weight", false),
    ("io.bfq.weight", false),
    ("io.weight", true),
];

const DEFAULT_WEIGHT: u16 = 100;

/// The rates of one device: bytes read and written, reads and writes, per second; `None` is no limit.
type Rates = [Option<u64>; 4];

/// Sets weight and rates to what `resources` says, or to the kernel's defaults.
pub(super) fn set(dir: &Path, resources: &LinuxResources) -> anyhow::Result<()> {
    let wanted = resources.block_io().clone().unwrap_or_default();
    set_weight(dir, wanted.weight().unwrap_or(DEFAULT_WEIGHT))?;
    let rates = rates(&wanted);
    match dir.join("io.max").exists() {
        true => max_v2(dir, &rates),
        false => throttle_v1(dir, &rates),
    }
}

/// Sets the weight, wherever there is a file for one.
pub(crate) fn set_weight(dir: &Path, weight: u16) -> anyhow::Result<()> {
    for (file, is_wide) in WEIGHT.iter().filter(|(file, _)| dir.join(file).exists()) {
        let value = if *is_wide { widened(weight) } else { u64::from(weight) };
        write(dir, file, &value.to_string())?;
    }
    Ok(())
}

/// From 10 to 1000 to 1 to 10000, as runc does it.
fn widened(weight: u16) -> u64 {
    1 + (u64::from(weight).saturating_sub(10) * 9999) / 990
}

fn rates(wanted: &LinuxBlockIo) -> BTreeMap<String, Rates> {
    let lists = [
        wanted.throttle_read_bps_device(),
        wanted.throttle_write_bps_device(),
        wanted.throttle_read_iops_device(),
        wanted.throttle_write_iops_device(),
    ];
    let mut all: BTreeMap<String, Rates> = BTreeMap::new();
    for (kind, list) in lists.into_iter().enumerate() {
        for device in list.iter().flatten() {
            all.entry(name(device)).or_default()[kind] = Some(device.rate());
        }
    }
    all
}

fn name(device: &LinuxThrottleDevice) -> String {
    format!("{}:{}", device.major(), device.minor())
}

fn max_v2(dir: &Path, wanted: &BTreeMap<String, Rates>) -> anyhow::Result<()> {
    let mut all = wanted.clone();
    for device in limited(dir, "io.max") {
        all.entry(device).or_default();
    }
    for (device, rates) in all {
        let [rbps, wbps, riops, wiops] =
            rates.map(|rate| rate.map_or_else(|| "max".to_owned(), |rate| rate.to_string()));
        let line = format!("{device} rbps={rbps} wbps={wbps} riops={riops} wiops={wiops}");
        write(dir, "io.max", &line)?;
    }
    Ok(())
}

fn throttle_v1(dir: &Path, wanted: &BTreeMap<String, Rates>) -> anyhow::Result<()> {
    const FILES: [&str; 4] = [
        "blkio.throttle.read_bps_device",
        "blkio.throttle.write_bps_device",
        "blkio.throttle.read_iops_device",
        "blkio.throttle.write_iops_device",
    ];
    for (kind, file) in FILES.into_iter().enumerate() {
        let given =
            wanted.iter().filter_map(|(device, rates)| Some((device.clone(), rates[kind]?)));
        let mut all: BTreeMap<String, u64> = given.collect();
        // Zero takes a limit away.
        for device in limited(dir, file) {
            all.entry(device).or_insert(0);
        }
        for (device, rate) in all {
            write(dir, file, &format!("{device} {rate}"))?;
        }
    }
    Ok(())
}

/// The devices that a file names now.
fn limited(dir: &Path, file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(dir.join(file)).unwrap_or_default();
    text.lines().filter_map(|line| line.split(' ').next().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_scaled_as_runc_s() {
        for (weight, want) in [(10, 1), (100, 910), (500, 4950), (1000, 10_000)] {
            assert_eq!(widened(weight), want);
        }
    }

    #[test]
    fn rates_are_gathered_by_device() {
        let wanted: LinuxBlockIo = serde_json::from_str(
            r#"{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":5}],
                "throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":7},{"major":254,"minor":1,"rate":9}]}"#,
        )
        .unwrap();
        let all: Vec<(String, Rates)> = rates(&wanted).into_iter().collect();
        assert_eq!(
            all,
            [
                ("254:1".into(), [None, None, None, Some(9)]),
                ("8:0".into(), [Some(5), None, None, Some(7)]),
            ]
        );
    }
}
