//! Python with packages from PyPI, each set of them installed once below `target`. Where that cannot be had, tests
//! are left out, and loudly.

use super::clients_folder;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An interpreter with the packages of a file of requirements.
pub struct Python {
    interpreter: PathBuf,
    /// Where its packages are.
    folder: PathBuf,
}

impl Python {
    /// Python 3 with `tests/clients/requirements.txt`, in a virtual environment: Debian's own takes no packages.
    pub fn three() -> Result<Python, String> {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python3");
        let python = Python { interpreter: folder.join("bin/python"), folder };
        python.with("requirements.txt", |python, requirements| {
            succeeds(Command::new("python3").args(["-m", "venv"]).arg(&python.folder))?;
            succeeds(python.command().args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(requirements))
        })
    }

    /// Python 2.7 with `tests/clients/requirements-autobahn.txt`. It has no virtual environments of its own.
    pub fn two() -> Result<Python, String> {
        // pyenv's shim of that name does not run unless it is asked to.
        let home = std::env::var_os("HOME").unwrap_or_default();
        let pyenv = std::env::var_os("PYENV_ROOT").map_or_else(|| Path::new(&home).join(".pyenv"), PathBuf::from);
        let versions = fs::read_dir(pyenv.join("versions")).into_iter().flatten().flatten();
        let of_pyenv = versions.filter(|version| version.file_name().to_string_lossy().starts_with("2.7"));
        let of_pyenv = of_pyenv.map(|version| version.path().join("bin/python2.7"));
        let runs = |python: &PathBuf| succeeds(Command::new(python).args(["-m", "pip", "--version"])).is_ok();
        let interpreter = ["python2.7".into()].into_iter().chain(of_pyenv).find(runs);
        let interpreter = interpreter.ok_or("there is no python2.7 with pip, neither in PATH nor of pyenv")?;
        let python = Python { interpreter, folder: Path::new(env!("CARGO_TARGET_TMPDIR")).join("python2.7") };
        python.with("requirements-autobahn.txt", |python, requirements| {
            let args = ["-m", "pip", "install", "--quiet", "--user", "--requirement"];
            succeeds(python.command().args(args).arg(requirements))
        })
    }

    /// A call of the interpreter.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.interpreter);
        command.env("PYTHONUSERBASE", &self.folder);
        command
    }

    /// Installs the requirements unless they are what was installed last.
    fn with(
        self,
        requirements: &str,
        install: impl FnOnce(&Python, &Path) -> Result<(), String>,
    ) -> Result<Python, String> {
        let requirements = clients_folder().join(requirements);
        let wanted = fs::read_to_string(&requirements).unwrap();
        let stamp = self.folder.join("installed.txt");
        if !fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
            let _ = fs::remove_dir_all(&self.folder);
            install(&self, &requirements)?;
            fs::write(&stamp, wanted).unwrap();
        }
        Ok(self)
    }
}

/// What it said if it does not end well.
fn succeeds(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    let text = [output.stdout, output.stderr].concat();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&text).into_owned()) }
}

/// Says that a test is left out, where `cargo test` does not keep it to itself.
pub fn skipped(what: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "\nSKIPPED: {what}: {why}\n");
}
