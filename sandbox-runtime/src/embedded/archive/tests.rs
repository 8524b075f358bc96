use std::fs;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tar::{Builder, Header};

use super::*;

fn layer(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        builder.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn configuration(layers: &[&[u8]]) -> Value {
    let own = if std::env::consts::ARCH == "x86_64" { "amd64" } else { "arm64" };
    let ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
    json!({"architecture": own, "os": "linux", "config": {"Env": ["A=b"]}, "rootfs": {"type": "layers", "diff_ids": ids}})
}

/// A layout in a directory.
struct Made(tempfile::TempDir);

impl Made {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("blobs/sha256")).unwrap();
        Self(directory)
    }

    fn blob(&self, content: &[u8]) -> String {
        let digest = digest(content);
        fs::write(self.0.path().join(blob(&digest).unwrap()), content).unwrap();
        digest
    }

    fn file(&self, name: &str, value: &Value) {
        fs::write(self.0.path().join(name), value.to_string()).unwrap();
    }

    /// An OCI layout of two layers; the second hides a file of the first.
    fn oci() -> Self {
        let made = Self::new();
        let (one, two) = (layer(&[("kept", "1"), ("hidden", "1")]), layer(&[(".wh.hidden", ""), ("new", "2")]));
        let config = made.blob(configuration(&[&one, &two]).to_string().as_bytes());
        let layers = [made.blob(&compressed(&one)), made.blob(&two)].map(|digest| json!({ "digest": digest }));
        let manifest = made.blob(json!({"config": {"digest": config}, "layers": layers}).to_string().as_bytes());
        let other = json!({"digest": manifest, "platform": {"architecture": "s390x", "os": "linux"}});
        made.file("index.json", &json!({"manifests": [other, {"digest": manifest}]}));
        made
    }

    fn unpack(&self) -> Result<(Layered, tempfile::TempDir)> {
        let layout = Layout::open(self.0.path()).unwrap();
        let layered = layout.find()?;
        let fresh = tempfile::tempdir().unwrap();
        layered.unpack(&layout, fresh.path())?;
        Ok((layered, fresh))
    }
}

#[test]
fn a_layout_comes_out_with_its_layers_applied() {
    let (layered, fresh) = Made::oci().unpack().unwrap();
    assert_eq!(layered.environment, ["A=b"]);
    let names: Vec<bool> =
        ["kept", "hidden", "new", ".wh.hidden"].map(|name| fresh.path().join(ROOTFS).join(name).exists()).to_vec();
    assert_eq!(names, [true, false, true, false]);
}

#[test]
fn what_docker_saves_is_the_same() {
    let made = Made::new();
    let one = layer(&[("x", "1")]);
    fs::create_dir(made.0.path().join("l")).unwrap();
    fs::write(made.0.path().join("l/layer.tar"), &one).unwrap();
    let configuration = configuration(&[&one]);
    made.file("c.json", &configuration);
    made.file("manifest.json", &json!([{"Config": "c.json", "RepoTags": ["x:1"], "Layers": ["l/layer.tar"]}]));
    let (layered, fresh) = made.unpack().unwrap();
    assert_eq!(layered.id, digest(configuration.to_string().as_bytes()));
    assert!(fresh.path().join(ROOTFS).join("x").exists());
    made.file("manifest.json", &json!([]));
    assert_eq!(made.unpack().unwrap_err().kind(), ErrorKind::ImageInvalid);
}

#[test]
fn a_content_that_is_not_what_was_named_is_refused() {
    for blob in fs::read_dir(Made::oci().0.path().join("blobs/sha256")).unwrap() {
        let made = Made::oci();
        let path = made.0.path().join("blobs/sha256").join(blob.unwrap().file_name());
        let other = layer(&[("evil", "3")]);
        let is_text = fs::read(&path).unwrap().starts_with(b"{");
        fs::write(&path, if is_text { b"{\"manifests\":[]}".to_vec() } else { other }).unwrap();
        let error = made.unpack().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ImageInvalid, "{error:?}");
        assert!(error.to_string().contains("sha256:"), "{error}");
    }
}

#[test]
fn names_that_lead_elsewhere_find_nothing() {
    let made = Made::new();
    for name in ["/etc/passwd", "../../../../../../etc/passwd"] {
        made.file("manifest.json", &json!([{"Config": name, "Layers": []}]));
        assert!(made.unpack().unwrap_err().to_string().contains("is missing"));
    }
    for digest in ["sha256:../../x", "md5:00", ""] {
        assert_eq!(blob(digest).unwrap_err().kind(), ErrorKind::ImageInvalid, "{digest}");
    }
}
