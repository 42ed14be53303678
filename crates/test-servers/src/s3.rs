//! Servers that speak S3.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tempfile::TempDir;

use crate::Process;
use crate::process::free_address;

/// The credentials that a server takes.
const KEY: &str = "highwater-test";
const SECRET: &str = "highwater-test-secret";

/// A server that speaks S3, and one bucket in it, `bucket`.
#[derive(Debug)]
pub struct S3 {
    process: Process,
    program: &'static str,
    arguments: Vec<String>,
    address: SocketAddr,
    /// Where buckets are made, and how: `POST`s of a path.
    bucket: (SocketAddr, &'static str, &'static str),
    _folder: TempDir,
}

impl S3 {
    /// A server that keeps everything in memory, and takes any credentials.
    ///
    /// # Panics
    ///
    /// If it doesn't start.
    pub fn moto() -> Self {
        let address = free_address();
        let [ip, port] = [address.ip().to_string(), address.port().to_string()];
        let arguments = ["-H", &ip, "-p", &port].map(str::to_owned).to_vec();
        Self::start("moto_server", arguments, address, (address, "PUT", "/bucket"), folder())
    }

    /// A server that keeps everything on disk, and takes no wrong credentials.
    ///
    /// # Panics
    ///
    /// If it doesn't start.
    pub fn seaweed() -> Self {
        let folder = folder();
        let file = |name: &str| folder.path().join(name).display().to_string();
        let identity = format!(
            r#"{{"identities":[{{"name":"test","credentials":[{{"accessKey":"{KEY}","secretKey":"{SECRET}"}}],
               "actions":["Admin","Read","Write","List","Tagging"]}}]}}"#
        );
        std::fs::write(file("s3.json"), identity).expect("a temporary folder takes files");
        let (s3, filer) = (free_address(), free_address());
        // Nothing is said to anybody outside of this machine, and nothing listens at a well-known port.
        let mut arguments: Vec<String> = ["server", "-filer", "-s3", "-ip=127.0.0.1"]
            .into_iter()
            .chain(["-ip.bind=127.0.0.1", "-master.telemetry=false", "-volume.max=8"])
            .chain(["-master.volumeSizeLimitMB=64", "-s3.port.iceberg=0", "-s3.port.lance=0"])
            .map(str::to_owned)
            .collect();
        arguments.push(format!("-dir={}", folder.path().display()));
        arguments.push(format!("-s3.config={}", file("s3.json")));
        arguments.push(format!("-filer.localSocket={}", file("filer.sock")));
        arguments.push(format!("-s3.localSocket={}", file("s3.sock")));
        arguments.push(format!("-s3.port={}", s3.port()));
        arguments.push(format!("-filer.port={}", filer.port()));
        let others = ["master.port", "volume.port", "master.port.grpc", "volume.port.grpc"];
        for name in others.into_iter().chain(["filer.port.grpc", "s3.port.grpc"]) {
            arguments.push(format!("-{name}={}", free_address().port()));
        }
        Self::start("weed", arguments, s3, (filer, "POST", "/buckets/bucket/"), folder)
    }

    fn start(
        program: &'static str,
        arguments: Vec<String>,
        address: SocketAddr,
        bucket: (SocketAddr, &'static str, &'static str),
        folder: TempDir,
    ) -> Self {
        let process = Process::start(program, &arguments);
        let mut server = S3 { process, program, arguments, address, bucket, _folder: folder };
        server.wait();
        server
    }

    /// Waits until it takes requests, and has the bucket.
    fn wait(&mut self) {
        let (address, bucket) = (self.address, self.bucket);
        self.process.wait_until("the server has its bucket", || {
            let (at, method, path) = bucket;
            // Made already, if the server was started again.
            let made = status(at, method, path)?;
            Ok((200..300).contains(&made) || made == 409)
        });
        // Any answer but that it isn't there yet.
        self.process.wait_until("the server takes requests", || {
            Ok(matches!(status(address, "GET", "/bucket")?, 200 | 403))
        });
    }

    /// Ends it at once, as a crash does. What it keeps on disk stays.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again at the same address, after [`kill`](Self::kill).
    ///
    /// # Panics
    ///
    /// If it doesn't start.
    pub fn restart(&mut self) {
        self.process = Process::start(self.program, &self.arguments);
        self.wait();
    }

    /// It takes connections and answers nothing, until [`resume`](Self::resume).
    pub fn pause(&self) {
        self.process.signal("STOP");
    }

    /// It goes on where it was paused.
    pub fn resume(&self) {
        self.process.signal("CONT");
    }

    /// The variables of the environment by which a client reaches it.
    pub fn variables(&self) -> Vec<(String, String)> {
        let endpoint = format!("http://{}", self.address);
        let variables = [
            ("AWS_ENDPOINT_URL", endpoint.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
        ];
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("there is room for temporary files")
}

/// The status of the answer to a request without a body.
fn status(address: SocketAddr, method: &str, path: &str) -> io::Result<u16> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(Duration::from_secs(5)))?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    connection.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer);
    let status = text.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    status.ok_or_else(|| io::Error::other(format!("no HTTP: {text}")))
}
