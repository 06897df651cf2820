//! A report as aligned text.

use std::fmt::Write;

use super::files::Files;
use super::images::Images;
use super::network::Network;
use super::{Life, Report};

/// Returns the table.
pub(super) fn render(report: &Report) -> String {
    let mut text = format!("\n{}, {} times each, milliseconds\n", report.runtime, report.count);
    if let Some(life) = &report.life {
        render_life(life, &mut text);
    }
    if let Some(files) = &report.files {
        render_files(files, &mut text);
    }
    text.trim_end().to_owned()
}

fn render_life(life: &Life, text: &mut String) {
    let _ = writeln!(
        text,
        "{:<24}{:>9}{:>9}    {:<16}{:>9}{:>9}{:>9}",
        "", "p50", "p95", "bare runtime", "p50", "p95", "ratio"
    );
    for row in &life.latencies {
        let _ = writeln!(
            text,
            "{:<24}{:>9.1}{:>9.1}    {:<16}{:>9.1}{:>9.1}{:>8.2}x",
            row.name,
            row.ours.p50,
            row.ours.p95,
            row.floor_name,
            row.floor.p50,
            row.floor.p95,
            row.ratio
        );
    }
    for bulk in [&life.bulk, &life.crowd] {
        let also = if bulk.peas > 0 { " + peas" } else { "" };
        for (name, times) in [("bulk_info", bulk.info), ("bulk_metrics", bulk.metrics)] {
            let name = format!("{name} of {}{also}", bulk.containers);
            let _ = writeln!(text, "{name:<24}{:>9.1}{:>9.1}", times.p50, times.p95);
        }
    }
    let _ = writeln!(text, "\n{:<24}{:>9}{:>9}{:>9}", "memory, KiB", "rss", "pss", "private");
    let memory = &life.memory;
    for (name, numbers) in [
        ("guardiand, idle", memory.server_idle),
        ("dadoo, per process", memory.dadoo),
        ("init, per container", memory.init),
    ] {
        let (rss, pss, private) = (numbers.rss_kib, numbers.pss_kib, numbers.private_kib);
        let _ = writeln!(text, "{name:<24}{rss:>9}{pss:>9}{private:>9}");
    }
    let added = memory.server_per_container_kib;
    let _ = writeln!(text, "{:<24}{added:>9.1}", "guardiand, per container");
    let _ = writeln!(text, "\nstreams, MiB per second");
    let streams = &life.streams;
    for (name, ours, floor_name, floor) in [
        ("stdout, API", streams.api_out, "socket copy", streams.socket),
        ("in and out, passed", streams.passed, "no manager", streams.bare),
    ] {
        let share = 100.0 * ours / floor;
        let _ = writeln!(
            text,
            "{name:<24}{ours:>9.0}             {floor_name:<16}{floor:>9.0}{share:>17.0}%"
        );
    }
    let _ = writeln!(text, "{:<24}{:>9.0}", "stdin, API", streams.api_in);
}

fn render_files(files: &Files, text: &mut String) {
    let _ = writeln!(text, "\nfiles through the API, MB per second");
    for (name, into, out) in [
        ("200 MiB", files.large_in, files.large_out),
        ("4000 of 4 KiB", files.small_in, files.small_out),
    ] {
        let _ = writeln!(text, "{name:<24}{into:>9.0} in {out:>9.0} out");
    }
    let _ = writeln!(text, "{:<24}{:>9.0} in, no container", "the same, tar -xf", files.small_tar);
}

/// Returns the table of what images cost.
pub(super) fn render_images(images: &Images, count: usize) -> String {
    let mut text = format!("\nrootfs, known images {count} times each, milliseconds\n");
    let _ = writeln!(text, "{:<24}{:>9}{:>9}", "", "p50", "p95");
    for (name, times) in [
        ("unpack", images.unpack),
        ("tar -xzf, and sync", images.tar_synced),
        ("tar -xzf, not synced", images.tar),
        ("umoci, not synced", images.umoci),
        ("create, 3 layers", images.create),
        ("create, 60 layers", images.create_deep),
        ("delete", images.delete),
    ] {
        let _ = writeln!(text, "{name:<24}{:>9.1}{:>9.1}", times.p50, times.p95);
    }
    text.trim_end().to_owned()
}

/// Returns the table of what a network costs.
pub(super) fn render_network(network: &Network, count: usize) -> String {
    let mut text = format!("\nnetsetup, {count} times each, milliseconds\n");
    let _ = writeln!(text, "{:<24}{:>9}{:>9}", "", "p50", "p95");
    for (name, times) in
        [("up", network.up), ("up, a port mapped", network.up_mapped), ("down", network.down)]
    {
        let _ = writeln!(text, "{name:<24}{:>9.1}{:>9.1}", times.p50, times.p95);
    }
    text.trim_end().to_owned()
}
