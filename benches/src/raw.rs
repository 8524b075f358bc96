//! The work, done by calls of the engine's API.

use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::container::AttachContainerResults;
use bollard::exec::StartExecResults;
use bollard::models::{ContainerCreateBody, ExecConfig, HostConfig};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptions, RemoveContainerOptionsBuilder, StartContainerOptions,
};
use futures_util::StreamExt as _;

use crate::{Engine, IMAGE, Result, Turn};

/// Speaks to the engine.
#[derive(Clone, Debug)]
pub struct Raw {
    docker: Docker,
}

impl Raw {
    /// Connects to the engine.
    ///
    /// # Errors
    /// The engine's.
    pub async fn connect(engine: &Engine) -> Result<Self> {
        let docker = Docker::connect_with_unix(&engine.address, 120, bollard::API_DEFAULT_VERSION)?;
        Ok(Self { docker: docker.negotiate_version().await? })
    }

    /// Starts a container that does nothing; returns its id.
    ///
    /// # Errors
    /// The engine's.
    pub async fn start(&self) -> Result<String> {
        let container = self.create(["sleep", "infinity"].as_slice()).await?;
        match self.docker.start_container(&container, None::<StartContainerOptions>).await {
            Ok(()) => Ok(container),
            Err(error) => {
                self.remove(&container).await?;
                Err(error.into())
            }
        }
    }

    /// Makes a container, waits for its first output, and removes it.
    ///
    /// # Errors
    /// The engine's.
    pub async fn turn(&self) -> Result<Turn> {
        let begun = Instant::now();
        // It stays until it is removed, so that there is a removal to measure.
        let container = self.create(["sh", "-c", "echo ready; exec sleep infinity"].as_slice()).await?;
        let came = self.first_output(&container).await;
        let first_output = begun.elapsed();
        let ended = Instant::now();
        self.remove(&container).await?;
        came.map(|()| Turn { first_output, destroy: ended.elapsed() })
    }

    async fn first_output(&self, container: &str) -> Result<()> {
        let options = AttachContainerOptionsBuilder::new().stream(true).stdout(true).build();
        let AttachContainerResults { mut output, input: _ } =
            self.docker.attach_container(container, Some(options)).await?;
        self.docker.start_container(container, None::<StartContainerOptions>).await?;
        output.next().await.ok_or("the container wrote nothing")??;
        Ok(())
    }

    /// Runs `true` to its end in a container.
    ///
    /// # Errors
    /// The engine's.
    pub async fn exec(&self, container: &str) -> Result<Duration> {
        let begun = Instant::now();
        let (exec, _) = self.run(container, ["true"].as_slice()).await?;
        let code = self.docker.inspect_exec(&exec).await?.exit_code;
        let took = begun.elapsed();
        if code != Some(0) {
            return Err(format!("true ended with {code:?}").into());
        }
        Ok(took)
    }

    /// Takes this many bytes of a program's output in a container.
    ///
    /// # Errors
    /// The engine's.
    pub async fn stream(self, container: String, bytes: u64) -> Result<Duration> {
        let begun = Instant::now();
        let (_, came) = self.run(&container, ["head", "-c", &bytes.to_string(), "/dev/zero"].as_slice()).await?;
        let took = begun.elapsed();
        if came != bytes {
            return Err(format!("{came} bytes came, not {bytes}").into());
        }
        Ok(took)
    }

    /// Removes a container, running or not.
    ///
    /// # Errors
    /// The engine's.
    pub async fn remove(&self, container: &str) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        Ok(self.docker.remove_container(container, Some(options)).await?)
    }

    async fn create(&self, command: &[&str]) -> Result<String> {
        let body = ContainerCreateBody {
            image: Some(IMAGE.to_owned()),
            cmd: Some(command.iter().map(|&word| word.to_owned()).collect()),
            attach_stdout: Some(true),
            host_config: Some(HostConfig { network_mode: Some("none".to_owned()), ..Default::default() }),
            ..Default::default()
        };
        Ok(self.docker.create_container(None::<CreateContainerOptions>, body).await?.id)
    }

    /// Runs a program to its end; returns the engine's id of it and how many bytes it wrote.
    async fn run(&self, container: &str, command: &[&str]) -> Result<(String, u64)> {
        let config = ExecConfig {
            cmd: Some(command.iter().map(|&word| word.to_owned()).collect()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..Default::default()
        };
        let exec = self.docker.create_exec(container, config).await?.id;
        let StartExecResults::Attached { mut output, input: _ } = self.docker.start_exec(&exec, None).await? else {
            return Err("the engine did not attach".into());
        };
        let mut bytes = 0;
        while let Some(chunk) = output.next().await {
            bytes += chunk?.into_bytes().len() as u64;
        }
        Ok((exec, bytes))
    }
}
