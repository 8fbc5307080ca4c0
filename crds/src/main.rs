//! Writes the generated CRD files: `cargo run -p leasehold-crds -- --write` into the repository,
//! without an argument to standard output.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = leasehold_crds::generated()?;
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .ok_or("the crate lies in no folder")?;
    if std::env::args().any(|argument| argument == "--write") {
        for file in files {
            let path = root.join(file.path);
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            std::fs::write(&path, file.text)?;
            println!("wrote {}", file.path);
        }
    } else {
        for file in files.iter().filter(|file| file.path.starts_with("crds/")) {
            println!("---\n{}", file.text);
        }
    }
    Ok(())
}
