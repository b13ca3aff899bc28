//! The config, the files that it names, the cores and the ports.

use super::Finding;
use super::facts::{Facts, Port, PortState, Refusal, SecretFile, Settings};

/// Permissions by which others read a file, or change it.
const READ_BY_OTHERS: u32 = 0o004;
const WRITTEN_BY_OTHERS: u32 = 0o022;

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut findings = config(&facts.settings);
    findings.extend(cores(facts));
    findings.extend(facts.secrets.iter().filter_map(secret));
    findings.extend(facts.ports.iter().map(port));
    if let Some((folder, false)) = &facts.socket_folder {
        let folder = folder.display();
        findings.push(Finding::warning(
            "ingest.unix",
            format!("the folder {folder} is not there"),
            "roomcast does not start if it cannot make its socket there.",
            format!("RuntimeDirectory= in the service's unit, if it is in /run; or: mkdir {folder}"),
        ));
    }
    findings
}

fn config(settings: &Settings) -> Vec<Finding> {
    let Settings { name, errors, warnings, .. } = settings;
    let wrong = errors.iter().map(|error| {
        let mend = format!("edit {name}, then: roomcast check {name}");
        Finding::wrong("config", error, "roomcast does not start with this config.", mend)
    });
    let odd = warnings.iter().map(|warning| {
        let why = "It is read, and probably not what was meant.";
        Finding::warning("config", warning, why, format!("roomcast check {name}"))
    });
    let mut findings: Vec<Finding> = wrong.chain(odd).collect();
    if errors.is_empty() {
        findings.insert(0, Finding::ok("config", format!("{name} is valid")));
    }
    findings
}

/// Whether each core has a processor.
fn cores(facts: &Facts) -> Option<Finding> {
    let (cores, processors) = (facts.settings.config.as_ref()?.server.cores, facts.cpus.len());
    let whose = facts.subject;
    if cores <= processors {
        let cores = if cores == 0 { processors } else { cores };
        let s = if cores == 1 { "" } else { "s" };
        return Some(Finding::ok("cores", format!("{cores} core{s} on {processors} processors of {whose}")));
    }
    let what = format!("server.cores = {cores}, and {processors} processors for {whose}");
    let mend = format!("server.cores = {processors}   # in the config's [server]; 0 for all");
    if facts.is_steered() {
        let why = "With server.steer = \"cpu\" each core must have a processor of its own; roomcast does not start.";
        return Some(Finding::wrong("cores", what, why, mend));
    }
    let why = "Cores without processors of their own are not pinned, take turns, and are late.";
    Some(Finding::warning("cores", what, why, mend))
}

fn secret(SecretFile { key, path, mode }: &SecretFile) -> Option<Finding> {
    let path = path.display();
    let (who, rights) = match mode {
        mode if mode & WRITTEN_BY_OTHERS != 0 => ("others may change", "go-w,o-r"),
        mode if mode & READ_BY_OTHERS != 0 => ("everybody on this host may read", "o-r"),
        _ => return None,
    };
    Some(Finding::warning(
        "secrets",
        format!("{key}: {who} {path} (mode {mode:04o})"),
        "Whoever knows what is in it can speak in the name of those who should.",
        format!("chmod {rights} {path}"),
    ))
}

fn port(Port { key, address, state }: &Port) -> Finding {
    let section = key.split_once('.').map_or(*key, |(section, _)| section);
    let elsewhere = format!("{key} = \"{}:0\"   # or another port, in the config's [{section}]", address.ip());
    let why = "roomcast does not start if it cannot listen on one of its ports.";
    match state {
        PortState::Free if address.port() == 0 => Finding::ok("port", format!("{key}: any free one")),
        PortState::Free => Finding::ok("port", format!("{key}: {address} is free")),
        PortState::Taken(holders) if !holders.is_empty() && holders.iter().all(|(_, name)| name == "roomcast") => {
            Finding::ok("port", format!("{key}: roomcast listens on {address} (process {})", listed(holders)))
        }
        PortState::Taken(holders) => {
            let whom = match &holders[..] {
                [] => "another process, of another user or in another container".to_owned(),
                holders => {
                    holders.iter().map(|(pid, name)| format!("{name} (process {pid})")).collect::<Vec<_>>().join(", ")
                }
            };
            let mend = match &holders[..] {
                [] => format!("sudo ss -ltnp 'sport = :{}'   # tells who; or: {elsewhere}", address.port()),
                [(pid, _), ..] => format!("kill {pid}   # or its service; or: {elsewhere}"),
            };
            Finding::wrong("port", format!("{key}: {address} is held by {whom}"), why, mend)
        }
        PortState::Refused(refusal) => refused(key, address.port(), &address.ip().to_string(), refusal, why, elsewhere),
    }
}

fn listed(holders: &[(u32, String)]) -> String {
    holders.iter().map(|(pid, _)| pid.to_string()).collect::<Vec<_>>().join(", ")
}

fn refused(key: &str, port: u16, ip: &str, refusal: &Refusal, why: &str, elsewhere: String) -> Finding {
    let (what, mend) = match refusal.errno {
        Some(libc::EACCES) => (
            format!("{key}: port {port} is not for everybody: those below net.ipv4.ip_unprivileged_port_start"),
            "AmbientCapabilities= and CapabilityBoundingSet=CAP_NET_BIND_SERVICE in the service's unit".to_owned(),
        ),
        Some(libc::EADDRNOTAVAIL) => (
            format!("{key}: this host has no address {ip}"),
            format!("ip -brief address   # shows those it has; [::] and 0.0.0.0 are all of them; set {key}"),
        ),
        Some(libc::EAFNOSUPPORT) => (format!("{key}: this host has no IPv6, and so no {ip}"), elsewhere),
        _ => (format!("{key}: {ip}:{port}: {}", refusal.text), elsewhere),
    };
    Finding::wrong("port", what, why, mend)
}

#[cfg(test)]
mod tests {
    use super::super::Grade;
    use super::super::facts::Subject;
    use super::*;
    use crate::config::Config;

    #[test]
    fn errors_of_the_config_stop_serving_and_oddities_do_not() {
        let settings = |errors: &[&str], warnings: &[&str]| Settings {
            name: "r.toml".to_owned(),
            errors: errors.iter().map(ToString::to_string).collect(),
            warnings: warnings.iter().map(ToString::to_string).collect(),
            ..Settings::default()
        };
        let grades = |settings: &Settings| config(settings).iter().map(|finding| finding.grade).collect::<Vec<_>>();
        assert_eq!(grades(&settings(&[], &[])), [Grade::Ok]);
        assert_eq!(grades(&settings(&[], &["weak"])), [Grade::Ok, Grade::Warning]);
        assert_eq!(grades(&settings(&["bad", "worse"], &["weak"])), [Grade::Wrong, Grade::Wrong, Grade::Warning]);
    }

    #[test]
    fn each_core_wants_a_processor() {
        for (text, cpus, grade) in [
            ("", vec![0, 1], Grade::Ok),
            ("server.cores = 2", vec![0, 1], Grade::Ok),
            ("server.cores = 3", vec![0, 1], Grade::Warning),
            ("server = { cores = 3, steer = \"cpu\" }", vec![0, 1], Grade::Wrong),
            ("server = { cores = 2, steer = \"cpu\" }", vec![4, 6], Grade::Ok),
        ] {
            let mut facts = Facts { cpus, ..Facts::default() };
            facts.settings.config = Some(Config::parse(text, "f.toml").unwrap());
            assert_eq!(cores(&facts).unwrap().grade, grade, "{text}");
        }
        assert_eq!(cores(&Facts::default()), None, "without a config");
    }

    #[test]
    fn secrets_are_for_few() {
        for (mode, mend) in [
            (0o600, None),
            (0o640, None),
            (0o440, None),
            (0o644, Some("chmod o-r /k")),
            (0o604, Some("chmod o-r /k")),
            (0o660, Some("chmod go-w,o-r /k")),
            (0o666, Some("chmod go-w,o-r /k")),
        ] {
            let file = SecretFile { key: "ingest.token_file".to_owned(), path: "/k".into(), mode };
            assert_eq!(secret(&file).and_then(|finding| finding.mend).as_deref(), mend, "{mode:o}");
        }
    }

    #[test]
    fn who_holds_a_port_is_named() {
        let refused = |errno| PortState::Refused(Refusal { errno: Some(errno), text: "os error".to_owned() });
        let held = |holders: &[(u32, &str)]| {
            PortState::Taken(holders.iter().map(|(pid, name)| (*pid, (*name).to_owned())).collect())
        };
        for (address, state, grade, what, mend) in [
            ("127.0.0.1:3000", PortState::Free, Grade::Ok, "127.0.0.1:3000 is free", ""),
            ("127.0.0.1:0", PortState::Free, Grade::Ok, "any free one", ""),
            ("127.0.0.1:3000", held(&[(7, "roomcast")]), Grade::Ok, "roomcast listens on", ""),
            ("127.0.0.1:3000", held(&[(7, "node")]), Grade::Wrong, "held by node (process 7)", "kill 7"),
            ("127.0.0.1:3000", held(&[(7, "roomcast"), (8, "node")]), Grade::Wrong, "node (process 8)", "kill 7"),
            ("127.0.0.1:3000", held(&[]), Grade::Wrong, "held by another process", "sudo ss -ltnp 'sport = :3000'"),
            ("0.0.0.0:80", refused(libc::EACCES), Grade::Wrong, "port 80 is not for everybody", "CAP_NET_BIND_SERVICE"),
            ("10.9.9.9:80", refused(libc::EADDRNOTAVAIL), Grade::Wrong, "no address 10.9.9.9", "ip -brief address"),
            ("[::]:80", refused(libc::EAFNOSUPPORT), Grade::Wrong, "no IPv6", "server.listen = "),
            ("[::]:80", refused(libc::EIO), Grade::Wrong, "os error", "server.listen = "),
        ] {
            let finding = port(&Port { key: "server.listen", address: address.parse().unwrap(), state });
            assert_eq!(finding.grade, grade, "{finding:?}");
            assert!(finding.what.contains(what), "{finding:?}");
            assert!(finding.mend.as_deref().unwrap_or("").contains(mend), "{finding:?}");
        }
    }

    #[test]
    fn a_missing_folder_is_told() {
        let mut facts = Facts { socket_folder: Some(("/run/roomcast".into(), true)), ..Facts::default() };
        assert_eq!(check(&facts).len(), 1);
        facts.socket_folder = Some(("/run/roomcast".into(), false));
        assert!(check(&facts)[1].what.contains("/run/roomcast"));
        assert_eq!(Subject::Server(7).to_string(), "the running server (process 7)");
    }
}
