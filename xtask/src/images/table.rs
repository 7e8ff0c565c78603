//! What was built, as a table for people.

use comfy_table::{CellAlignment, Table, presets};

use super::Built;

const MEBIBYTE: u64 = 1 << 20;

/// The table: image, size, digest, archive.
#[must_use]
pub fn table(built: &[Built]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["IMAGE", "MIB", "DIGEST", "ARCHIVE"]);
    for image in built {
        table.add_row([
            image.reference.to_string(),
            mebibytes(image.size),
            image.digest.clone(),
            image.archive.display().to_string(),
        ]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

/// With one digit behind the point, without floating numbers.
fn mebibytes(bytes: u64) -> String {
    let tenths = (bytes * 10 + MEBIBYTE / 2) / MEBIBYTE;
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_have_one_digit() {
        let sizes = [0, 52_428, 1 << 20, 10_590_000].map(super::mebibytes);
        assert_eq!(sizes, ["0.0", "0.0", "1.0", "10.1"]);
    }
}
