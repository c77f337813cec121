//! A virtual machine's guest of Debian's kernel and a busybox, with a shell on its console.

#![allow(dead_code)] // each test target uses its part

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::daemon::PATIENCE;
use crate::debian::sh;

/// Makes the guest's first file system, with these programs and kernel modules. Its `init` finds the modules' files in the order of
/// `/modules/order`.
pub fn image(kernel: &Path, programs: &[(&str, &str)], modules: &str) -> PathBuf {
    let root = Path::new("/run/guest");
    for folder in ["bin", "dev", "proc", "sys", "modules"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    let busybox = "/bin/busybox";
    fs::copy(busybox, root.join("bin/busybox")).unwrap();
    symlink("busybox", root.join("bin/sh")).unwrap();
    for (name, script) in programs {
        fs::write(root.join(name), script).unwrap();
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let script = format!(
        "for library in $(ldd {busybox} 2>/dev/null | grep -o '/[^ ]*'); do
             mkdir -p .$(dirname $library); cp -L $library .$library
         done
         version=$(ls {kernel}/lib/modules)
         for module in {modules}; do
             modprobe -d {kernel} -S $version --show-depends $module | while read -r kind path rest; do
                 [ $kind = insmod ] || continue
                 grep -qx $(basename $path) modules/order 2>/dev/null && continue
                 cp $path modules/; basename $path >> modules/order
             done
         done
         find . | cpio --create --format=newc --quiet > /run/guest.cpio",
        kernel = kernel.display()
    );
    sh(root, &script);
    "/run/guest.cpio".into()
}

/// The console of a guest whose `init` runs the lines that come by it, and says `<<STATUS>>` after each.
pub struct Console(BufReader<UnixStream>);

impl Console {
    /// Connects to a machine's console as soon as the machine listens.
    pub fn connect(socket: &str) -> Self {
        let deadline = Instant::now() + PATIENCE;
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            // A process that begins to listen makes no event.
            std::thread::sleep(Duration::from_millis(2));
        };
        stream.set_read_timeout(Some(PATIENCE * 4)).unwrap();
        Self(BufReader::new(stream))
    }

    /// What comes up to a line that is wanted, which is the last one.
    pub fn until(&mut self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            let read = self.0.read_until(b'\n', &mut line);
            assert!(read.is_ok_and(|length| length > 0), "the guest says no more: {lines:?}");
            lines.push(String::from_utf8_lossy(&line).trim().to_owned());
            if lines.last().is_some_and(|line| wanted(line)) {
                return lines;
            }
        }
    }

    /// Runs a line of script inside, which succeeds; what it says.
    pub fn run(&mut self, script: &str) -> Vec<String> {
        self.say(script);
        let mut said = self.until(|line| line.starts_with("<<"));
        assert_eq!(said.pop().as_deref(), Some("<<0>>"), "{script}: {said:?}");
        said
    }

    /// Has a line of script run inside.
    pub fn say(&mut self, script: &str) {
        writeln!(self.0.get_mut(), "{script}").unwrap();
    }
}
