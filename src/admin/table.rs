//! Aligned columns for people.

/// Rows under headings.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Makes a table with these headings.
    pub(super) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|text| (*text).to_owned()).collect()] }
    }

    /// Adds a row of as many cells as there are headings. Control characters are dropped: what the
    /// control plane answers must not move the cursor.
    pub(super) fn row(&mut self, cells: &[&str]) {
        let clean = |text: &&str| text.chars().filter(|c| !c.is_control()).collect();
        self.rows.push(cells.iter().map(clean).collect());
    }

    /// Renders the rows; a sentence when there are none.
    pub(super) fn render(&self) -> String {
        if self.rows.len() == 1 {
            return "there are none\n".to_owned();
        }
        let columns = self.rows[0].len();
        let width =
            |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_clean() {
        let mut table = Table::new(&["NAME", "ID"]);
        assert_eq!(table.render(), "there are none\n");
        table.row(&["äö\u{1b}[31m", "1"]);
        table.row(&["longer name", ""]);
        assert_eq!(table.render(), "NAME         ID\näö[31m       1\nlonger name\n");
    }
}
