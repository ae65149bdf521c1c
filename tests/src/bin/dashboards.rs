//! Writes `charts/switchboard/dashboards` anew from their descriptions; `make generate` runs it.

use e2e::{dashboards, installation::repository};

fn main() -> std::io::Result<()> {
    let folder = repository().join("charts/switchboard/dashboards");
    for dashboard in dashboards::all() {
        std::fs::write(folder.join(format!("{}.json", dashboard.name)), dashboard.to_json())?;
    }
    Ok(())
}
