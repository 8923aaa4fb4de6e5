//! Where instructions come from: functions and lines of the source, as compilers write them down
//! beside a program (`.BTF.ext`). Nothing that runs depends on it; messages and listings do.

use std::fmt;
use std::sync::Arc;

/// A function of a program.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Function {
    /// Its first slot.
    pub slot: u32,
    /// Its name in the source.
    pub name: Arc<str>,
}

/// A line of the source: what the instructions from its slot on, up to the next line's, do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    /// First slot.
    pub slot: u32,
    /// Name of the file, as the compiler was given it.
    pub file: Arc<str>,
    /// From 1; 0 for code without a line of its own.
    pub line: u32,
    /// From 1; 0 when unknown.
    pub column: u32,
    /// Text of the line; may be empty.
    pub text: Arc<str>,
}

impl fmt::Display for Line {
    /// `file:line:column`, as compilers say it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)?;
        if self.column != 0 {
            write!(f, ":{}", self.column)?;
        }
        Ok(())
    }
}

/// Functions and lines of one program, each in order of slots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct DebugInfo {
    functions: Vec<Function>,
    lines: Vec<Line>,
}

impl DebugInfo {
    /// Brings both into order; of several for one slot, the last one counts.
    pub fn new(mut functions: Vec<Function>, mut lines: Vec<Line>) -> Self {
        functions.sort_by_key(|f| f.slot);
        lines.sort_by_key(|l| l.slot);
        keep_last(&mut functions, |f| f.slot);
        keep_last(&mut lines, |l| l.slot);
        Self { functions, lines }
    }

    /// In order of slots.
    pub fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// In order of slots.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty() && self.lines.is_empty()
    }

    /// The function an instruction is in.
    pub fn function(&self, slot: usize) -> Option<&Function> {
        let next = self.functions.partition_point(|f| f.slot as usize <= slot);
        self.functions.get(next.checked_sub(1)?)
    }

    /// The line an instruction comes from. A function's code never belongs to a line of the one
    /// before it.
    pub fn line(&self, slot: usize) -> Option<&Line> {
        let next = self.lines.partition_point(|l| l.slot as usize <= slot);
        let line = self.lines.get(next.checked_sub(1)?)?;
        let starts = self.function(slot).map_or(0, |f| f.slot);
        (line.slot >= starts).then_some(line)
    }
}

fn keep_last<T>(all: &mut Vec<T>, slot: impl Fn(&T) -> u32) {
    all.reverse();
    all.dedup_by_key(|one| slot(one));
    all.reverse();
}
