//! Traffic with block devices: how much of a busy one, and how much at most.

use guardian_contract::depot::BLOCK_IO_WEIGHT;
use guardian_contract::fault::Fault;
use guardian_contract::garden::BlockIoLimits;
use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice, LinuxThrottleDeviceBuilder, Spec};

use super::resources;
use crate::cli;
use crate::host::BlockDevice;

/// What the runtime specification allows.
const WEIGHTS: std::ops::RangeInclusive<u16> = 10..=1000;

/// Returns what a client wants, or else the operator.
pub(super) fn or_default(wanted: BlockIoLimits, options: &cli::Limits) -> BlockIoLimits {
    BlockIoLimits {
        weight: wanted.weight.or(Some(options.default_container_blockio_weight)),
        read_bps: wanted.read_bps.or(Some(options.container_io_max_read_bps)),
        write_bps: wanted.write_bps.or(Some(options.container_io_max_write_bps)),
        read_iops: wanted.read_iops.or(Some(options.container_io_max_read_iops)),
        write_iops: wanted.write_iops.or(Some(options.container_io_max_write_iops)),
    }
}

/// Sets the members that are given; zero is none. gdn limits rates on cgroup v2 only; the runtimes
/// can on version 1 too, where the kernel counts what bypasses the page cache, and reads.
pub(super) fn change(
    spec: &mut Spec,
    wanted: BlockIoLimits,
    devices: &[BlockDevice],
) -> anyhow::Result<()> {
    if let Some(weight) = wanted.weight {
        set_weight(spec, weight)?;
    }
    let resources = resources(spec);
    let mut all = resources.block_io().clone().unwrap_or_default();
    if let Some(rate) = wanted.read_bps {
        all.set_throttle_read_bps_device(rates(rate, devices)?);
    }
    if let Some(rate) = wanted.write_bps {
        all.set_throttle_write_bps_device(rates(rate, devices)?);
    }
    if let Some(rate) = wanted.read_iops {
        all.set_throttle_read_iops_device(rates(rate, devices)?);
    }
    if let Some(rate) = wanted.write_iops {
        all.set_throttle_write_iops_device(rates(rate, devices)?);
    }
    resources.set_block_io(Some(all).filter(|all| *all != LinuxBlockIo::default()));
    Ok(())
}

fn set_weight(spec: &mut Spec, weight: u16) -> anyhow::Result<()> {
    let mut annotations = spec.annotations().clone().unwrap_or_default();
    match weight {
        0 => annotations.remove(BLOCK_IO_WEIGHT),
        weight if WEIGHTS.contains(&weight) => {
            annotations.insert(BLOCK_IO_WEIGHT.into(), weight.to_string())
        }
        weight => {
            let message = format!("block I/O weight {weight} is not between 10 and 1000");
            return Err(Fault::invalid(message).into());
        }
    };
    spec.set_annotations(Some(annotations).filter(|all| !all.is_empty()));
    Ok(())
}

/// The same rate for every device: nobody can tell where a container's layers and writes will be.
fn rates(rate: u64, devices: &[BlockDevice]) -> anyhow::Result<Option<Vec<LinuxThrottleDevice>>> {
    let of = |device: &BlockDevice| {
        let builder = LinuxThrottleDeviceBuilder::default();
        Ok(builder.major(device.major).minor(device.minor).rate(rate).build()?)
    };
    let all: anyhow::Result<Vec<_>> = devices.iter().map(of).collect();
    Ok(Some(all?).filter(|all| rate > 0 && !all.is_empty()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::rules::fixture::{made_by, wanted};
    use crate::rules::limits;

    #[test]
    fn the_client_goes_before_the_operator() {
        let mut wanted = wanted();
        wanted.options.limits.default_container_blockio_weight = 500;
        wanted.options.limits.container_io_max_read_bps = 1 << 20;
        wanted.spec.limits.block_io.read_bps = Some(0);
        wanted.spec.limits.block_io.write_iops = Some(70);
        let made = made_by(limits::apply, &wanted);
        assert_eq!(made["annotations"], json!({"guardian.block-io-weight": "500"}));
        assert_eq!(
            made["linux"]["resources"],
            json!({"blockIO": {"throttleWriteIOPSDevice": [
                {"major": 254, "minor": 0, "rate": 70}, {"major": 8, "minor": 16, "rate": 70}]}})
        );
    }

    #[test]
    fn a_change_touches_what_it_names() {
        let mut wanted = wanted();
        wanted.spec.limits.block_io.weight = Some(100);
        wanted.spec.limits.block_io.read_bps = Some(5);
        let mut spec = limits::apply(serde_json::from_str("{}").unwrap(), &wanted).unwrap();
        let asked = BlockIoLimits { read_bps: Some(0), ..BlockIoLimits::default() };
        change(&mut spec, asked, &wanted.host.block_devices).unwrap();
        let made = serde_json::to_value(&spec).unwrap();
        assert_eq!(made["annotations"], json!({"guardian.block-io-weight": "100"}));
        assert_eq!(made["linux"]["resources"]["blockIO"], Value::Null);
        for bad in [9, 1001] {
            let asked = BlockIoLimits { weight: Some(bad), ..BlockIoLimits::default() };
            let error = change(&mut spec, asked, &[]).unwrap_err().to_string();
            assert_eq!(error, format!("block I/O weight {bad} is not between 10 and 1000"));
        }
    }
}
