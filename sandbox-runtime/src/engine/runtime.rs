//! How an engine becomes a runtime: each product has a type of its own, and all of them do the same with it.

/// Implements [`Runtime`](sandbox_core::Runtime) for a type with an `engine`, and what engines can do beside it.
macro_rules! runtime_of_an_engine {
    ($runtime:ident) => {
        impl $runtime {
            /// Makes an image of a tar archive, perhaps compressed, that holds a root file system.
            ///
            /// # Errors
            /// `InvalidInput` for a reference with a digest or an id, `ImageInvalid`, or one of the engine's.
            pub async fn import_rootfs<R>(
                &self,
                archive: R,
                reference: &sandbox_policy::ImageRef,
            ) -> sandbox_core::Result<sandbox_core::Image>
            where
                R: tokio::io::AsyncRead + Send + Unpin + 'static,
            {
                self.engine.import_rootfs(archive, reference).await
            }

            /// Takes the images out of an archive that `docker save` or `podman save` made.
            ///
            /// # Errors
            /// `ImageInvalid` for an archive without an image and for images that no sandbox may use, or one of the
            /// engine's.
            pub async fn load_archive<R>(&self, archive: R) -> sandbox_core::Result<Vec<sandbox_core::Image>>
            where
                R: tokio::io::AsyncRead + Send + Unpin + 'static,
            {
                self.engine.load_archive(archive).await
            }
        }

        #[async_trait::async_trait]
        impl sandbox_core::Runtime for $runtime {
            fn info(&self) -> &sandbox_core::RuntimeInfo {
                self.engine.info()
            }

            fn capabilities(&self) -> &sandbox_policy::Capabilities {
                self.engine.capabilities()
            }

            fn guest(&self) -> &[u8] {
                crate::guest_program()
            }

            fn transport(&self) -> sandbox_core::Transport {
                self.engine.transport()
            }

            fn isolation(&self) -> sandbox_policy::Isolation {
                self.engine.isolation()
            }

            fn file_system(&self) -> sandbox_core::FileSystem {
                self.engine.file_system()
            }

            fn ownership(&self, owner: (u32, u32)) -> sandbox_core::Ownership {
                self.engine.ownership(owner)
            }

            async fn attach(
                &self,
                container: &sandbox_core::ContainerId,
            ) -> sandbox_core::Result<std::os::fd::OwnedFd> {
                self.engine.attach(container).await
            }

            async fn resolve(
                &self,
                spec: &sandbox_policy::SandboxSpec,
                events: &sandbox_core::Events,
            ) -> sandbox_core::Result<sandbox_core::Image> {
                self.engine.resolve(spec, events).await
            }

            async fn create(
                &self,
                spec: &sandbox_policy::SandboxSpec,
                wiring: &sandbox_core::Wiring,
            ) -> sandbox_core::Result<sandbox_core::ContainerId> {
                self.engine.create(spec, wiring).await
            }

            async fn start(&self, container: &sandbox_core::ContainerId) -> sandbox_core::Result<()> {
                self.engine.start(container).await
            }

            async fn state(
                &self,
                container: &sandbox_core::ContainerId,
            ) -> sandbox_core::Result<sandbox_core::ContainerState> {
                self.engine.state(container).await
            }

            async fn kill(
                &self,
                container: &sandbox_core::ContainerId,
                signal: sandbox_core::Signal,
            ) -> sandbox_core::Result<()> {
                self.engine.kill(container, signal).await
            }

            async fn delete(&self, container: &sandbox_core::ContainerId) -> sandbox_core::Result<()> {
                self.engine.delete(container).await
            }

            async fn list(&self) -> sandbox_core::Result<Vec<sandbox_core::ContainerSummary>> {
                self.engine.list().await
            }
        }
    };
}

pub(crate) use runtime_of_an_engine;
