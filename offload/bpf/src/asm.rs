//! Text to programs: reads what [`disasm`](mod@crate::disasm) writes, and labels.
//!
//! One instruction a line; `name:` binds a label, on its own line or before an instruction; `;`,
//! `#` and `//` start comments. `.insn code regs off imm` places a slot as it is, well-formed or
//! not.
//!
//! ```
//! let program = dash_bpf::asm::assemble("
//!     r0 = 0
//!     if r1 == 0 goto out   ; nothing to add
//!     r0 += r1
//! out:
//!     exit
//! ")?;
//! assert_eq!(program.len(), 4);
//! # Ok::<(), dash_bpf::asm::AsmError>(())
//! ```

use std::collections::HashMap;

use thiserror::Error;

use crate::decode::{EncodeError, GOTOL, encode};
use crate::insn::Insn;
use crate::op::{AluOp, AtomicOp, Cond, Endian, Imm64, Op, Operand, Reg, Size, Width};

/// Why text is not a program.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {kind}")]
pub struct AsmError {
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong there.
    pub kind: AsmErrorKind,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AsmErrorKind {
    /// A character that starts no token.
    #[error("unexpected character {0:?}")]
    Character(char),
    /// Something else was required here.
    #[error("expected {expected}, found {found}")]
    Expected {
        /// What was required.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// A number that does not fit its field.
    #[error("{value} does not fit {field}")]
    Range {
        /// The number.
        value: i128,
        /// Where it was to go.
        field: &'static str,
    },
    /// The two operands of an instruction are of different width, or registers that must agree
    /// differ.
    #[error("{0}")]
    Mismatch(&'static str),
    /// No line binds this label.
    #[error("label {0:?} is not bound")]
    Unbound(String),
    /// Two lines bind this label.
    #[error("label {0:?} is bound twice")]
    BoundTwice(String),
    /// The instruction has no encoding.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

type Parse<T> = Result<T, AsmErrorKind>;

/// Where a jump or call goes.
#[derive(Clone, Debug)]
enum Target {
    By(i64),
    Label(String),
}

/// Field that holds a distance.
#[derive(Clone, Copy, Debug)]
enum Field {
    Off,
    Imm,
}

#[derive(Debug)]
struct Line {
    number: usize,
    slot: usize,
    insns: Vec<Insn>,
    target: Option<(Field, Target)>,
}

/// Assembles a program. The result is encoded but not checked as a whole: that is
/// [`decode`](fn@crate::decode)'s.
///
/// # Errors
/// The first line that is not an instruction, or a label that is unbound or bound twice.
pub fn assemble(text: &str) -> Result<Vec<Insn>, AsmError> {
    let mut labels: HashMap<String, usize> = HashMap::new();
    let mut lines: Vec<Line> = Vec::new();
    let mut slot = 0;
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let at = |kind| AsmError { line: number, kind };
        let mut p = Parser::new(line).map_err(at)?;
        while let Some(name) = p.label() {
            if labels.insert(name.clone(), slot).is_some() {
                return Err(at(AsmErrorKind::BoundTwice(name)));
            }
        }
        if p.at_end() {
            continue;
        }
        let (insns, target) = p.instruction().map_err(at)?;
        if !p.at_end() {
            return Err(at(p.expected("end of line")));
        }
        let len = insns.len();
        lines.push(Line {
            number,
            slot,
            insns,
            target,
        });
        slot += len;
    }
    let mut program = Vec::with_capacity(slot);
    for mut line in lines {
        let at = |kind| AsmError {
            line: line.number,
            kind,
        };
        if let (Some((field, target)), Some(insn)) = (&line.target, line.insns.first_mut()) {
            let by = match target {
                Target::By(by) => *by,
                Target::Label(name) => {
                    let bound = labels.get(name);
                    let bound = bound.ok_or_else(|| at(AsmErrorKind::Unbound(name.clone())))?;
                    *bound as i64 - (line.slot as i64 + 1)
                }
            };
            patch(insn, *field, by).map_err(at)?;
        }
        program.extend_from_slice(&line.insns);
    }
    Ok(program)
}

fn patch(insn: &mut Insn, field: Field, by: i64) -> Parse<()> {
    let value = i128::from(by);
    match field {
        Field::Off => insn.off = fit(value, "a 16-bit jump")?,
        Field::Imm => insn.imm = fit(value, "a 32-bit jump")?,
    }
    Ok(())
}

fn fit<T: TryFrom<i128>>(value: i128, field: &'static str) -> Parse<T> {
    T::try_from(value).map_err(|_| AsmErrorKind::Range { value, field })
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Number(i128),
    Sign(&'static str),
}

/// Longest first: `s>>=` before `s>`.
const SIGNS: [&str; 39] = [
    "s>>=", "<<=", ">>=", "s/=", "s%=", "s>=", "s<=", "==", "!=", ">=", "<=", "s>", "s<", "+=",
    "-=", "*=", "/=", "|=", "&=", "%=", "^=", "<", ">", "&", "=", "(", ")", "[", "]", "+", "-",
    "*", ",", ":", ".", "//", ";", "#", "/",
];

fn tokens(line: &str) -> Parse<Vec<Token>> {
    let mut out = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        if let Some(sign) = SIGNS.iter().find(|s| rest.starts_with(**s)) {
            if matches!(*sign, "//" | ";" | "#") {
                break;
            }
            out.push(Token::Sign(sign));
            rest = rest[sign.len()..].trim_start();
            continue;
        }
        if !(first.is_ascii_alphanumeric() || first == '_') {
            return Err(AsmErrorKind::Character(first));
        }
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .unwrap_or(rest.len());
        let (word, tail) = rest.split_at(end);
        out.push(if first.is_ascii_digit() {
            Token::Number(number(word)?)
        } else {
            Token::Word(word.to_owned())
        });
        rest = tail.trim_start();
    }
    Ok(out)
}

fn number(word: &str) -> Parse<i128> {
    let parsed = match word.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => word.parse(),
    };
    parsed.map(i128::from).map_err(|_| AsmErrorKind::Expected {
        expected: "a number of at most 64 bits",
        found: format!("{word:?}"),
    })
}

#[derive(Debug)]
struct Parser {
    tokens: Vec<Token>,
    next: usize,
}

/// An instruction and, if it jumps, where to.
type Parsed = (Vec<Insn>, Option<(Field, Target)>);

fn plain(op: Op) -> Parse<Parsed> {
    Ok((encode(&op, 0)?.as_slice().to_vec(), None))
}

impl Parser {
    fn new(line: &str) -> Parse<Self> {
        Ok(Self {
            tokens: tokens(line)?,
            next: 0,
        })
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next)
    }

    fn peek_after(&self) -> Option<&Token> {
        self.tokens.get(self.next + 1)
    }

    fn at_end(&self) -> bool {
        self.peek().is_none()
    }

    fn expected(&self, expected: &'static str) -> AsmErrorKind {
        let found = match self.peek() {
            None => "end of line".to_owned(),
            Some(Token::Word(w)) => format!("{w:?}"),
            Some(Token::Number(n)) => n.to_string(),
            Some(Token::Sign(s)) => format!("{s:?}"),
        };
        AsmErrorKind::Expected { expected, found }
    }

    fn eat(&mut self, sign: &'static str) -> bool {
        let hit = matches!(self.peek(), Some(Token::Sign(s)) if *s == sign);
        self.next += usize::from(hit);
        hit
    }

    fn need(&mut self, sign: &'static str) -> Parse<()> {
        if self.eat(sign) {
            Ok(())
        } else {
            Err(self.expected(sign))
        }
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let hit = matches!(self.peek(), Some(Token::Word(w)) if w == word);
        self.next += usize::from(hit);
        hit
    }

    fn word(&mut self, expected: &'static str) -> Parse<String> {
        match self.peek() {
            Some(Token::Word(w)) => {
                let w = w.clone();
                self.next += 1;
                Ok(w)
            }
            _ => Err(self.expected(expected)),
        }
    }

    fn sign(&mut self, expected: &'static str) -> Parse<&'static str> {
        match self.peek() {
            Some(Token::Sign(s)) => {
                let s = *s;
                self.next += 1;
                Ok(s)
            }
            _ => Err(self.expected(expected)),
        }
    }

    /// `name:` at the start of what is left.
    fn label(&mut self) -> Option<String> {
        match (self.peek(), self.peek_after()) {
            (Some(Token::Word(name)), Some(Token::Sign(":"))) => {
                let name = name.clone();
                self.next += 2;
                Some(name)
            }
            _ => None,
        }
    }

    fn number(&mut self) -> Parse<i128> {
        let minus = self.eat("-");
        if !minus {
            self.eat("+");
        }
        match self.peek() {
            Some(Token::Number(n)) => {
                let n = if minus { -*n } else { *n };
                self.next += 1;
                Ok(n)
            }
            _ => Err(self.expected("a number")),
        }
    }

    fn int<T: TryFrom<i128>>(&mut self, field: &'static str) -> Parse<T> {
        fit(self.number()?, field)
    }

    fn at_reg(&self) -> bool {
        matches!(self.peek(), Some(Token::Word(w)) if register(w).is_some())
    }

    fn reg(&mut self) -> Parse<(Width, Reg)> {
        match self.peek() {
            Some(Token::Word(w)) => match register(w) {
                Some(r) => {
                    self.next += 1;
                    Ok(r)
                }
                None => Err(self.expected("a register")),
            },
            _ => Err(self.expected("a register")),
        }
    }

    fn reg_of(&mut self, width: Width) -> Parse<Reg> {
        let (w, r) = self.reg()?;
        if w == width {
            Ok(r)
        } else {
            Err(AsmErrorKind::Mismatch("operands are of different width"))
        }
    }

    /// A register of this width, or an immediate: 32 bits signed, or hex of 32 bits.
    fn operand(&mut self, width: Width) -> Parse<Operand> {
        if self.at_reg() {
            return Ok(Operand::Reg(self.reg_of(width)?));
        }
        Ok(Operand::Imm(self.imm32()?))
    }

    fn imm32(&mut self) -> Parse<i32> {
        self.int("a signed 32-bit immediate")
    }

    fn target(&mut self) -> Parse<Target> {
        match self.peek() {
            Some(Token::Word(name)) => {
                let name = name.clone();
                self.next += 1;
                Ok(Target::Label(name))
            }
            _ => Ok(Target::By(self.int("a jump")?)),
        }
    }

    /// `(u32 *)`: signedness and size.
    fn cast(&mut self) -> Parse<(bool, Size)> {
        self.need("(")?;
        let word = self.word("a type")?;
        let kind = match word.as_str() {
            "u8" => (false, Size::B),
            "u16" => (false, Size::H),
            "u32" => (false, Size::W),
            "u64" => (false, Size::Dw),
            "s8" => (true, Size::B),
            "s16" => (true, Size::H),
            "s32" => (true, Size::W),
            _ => {
                self.next -= 1;
                return Err(self.expected("u8, u16, u32, u64, s8, s16 or s32"));
            }
        };
        self.need("*")?;
        self.need(")")?;
        Ok(kind)
    }

    /// `r1 + 4`.
    fn place(&mut self) -> Parse<(Reg, i16)> {
        let base = self.reg_of(Width::W64)?;
        let off = match self.peek() {
            Some(Token::Sign("+" | "-")) => self.int("a 16-bit offset")?,
            _ => 0,
        };
        Ok((base, off))
    }

    fn place_in_parens(&mut self) -> Parse<(Reg, i16)> {
        self.need("(")?;
        let place = self.place()?;
        self.need(")")?;
        Ok(place)
    }

    fn instruction(&mut self) -> Parse<Parsed> {
        if self.at_reg() {
            return self.assignment();
        }
        if self.eat("*") {
            return self.store();
        }
        if self.eat(".") {
            return self.raw();
        }
        match self.word("an instruction")?.as_str() {
            "exit" => plain(Op::Exit),
            "goto" => {
                let target = self.target()?;
                let insn = Insn {
                    code: 0x05,
                    ..Insn::default()
                };
                Ok((vec![insn], Some((Field::Off, target))))
            }
            "gotol" => {
                let target = self.target()?;
                let insn = Insn {
                    code: GOTOL,
                    ..Insn::default()
                };
                Ok((vec![insn], Some((Field::Imm, target))))
            }
            "if" => self.branch(),
            "call" => self.call(),
            "callx" => {
                let reg = self.reg_of(Width::W64)?;
                plain(Op::CallReg { reg })
            }
            "lock" => self.lock(),
            _ => {
                self.next -= 1;
                Err(self.expected("an instruction"))
            }
        }
    }

    fn raw(&mut self) -> Parse<Parsed> {
        if !self.eat_word("insn") {
            return Err(self.expected("insn"));
        }
        let insn = Insn {
            code: self.int("an opcode")?,
            regs: self.int("a register byte")?,
            off: self.int("a 16-bit offset")?,
            imm: self.imm32()?,
        };
        Ok((vec![insn], None))
    }

    fn branch(&mut self) -> Parse<Parsed> {
        let (width, dst) = self.reg()?;
        let cond = match self.sign("a condition")? {
            "==" => Cond::Eq,
            "!=" => Cond::Ne,
            "&" => Cond::Set,
            ">" => Cond::Gt,
            ">=" => Cond::Ge,
            "<" => Cond::Lt,
            "<=" => Cond::Le,
            "s>" => Cond::Sgt,
            "s>=" => Cond::Sge,
            "s<" => Cond::Slt,
            "s<=" => Cond::Sle,
            _ => {
                self.next -= 1;
                return Err(self.expected("a condition"));
            }
        };
        let src = self.operand(width)?;
        if !self.eat_word("goto") {
            return Err(self.expected("goto"));
        }
        let target = self.target()?;
        let (insns, _) = plain(Op::JumpIf {
            width,
            cond,
            dst,
            src,
            target: 1,
        })?;
        Ok((insns, Some((Field::Off, target))))
    }

    fn call(&mut self) -> Parse<Parsed> {
        if self.eat_word("btf") {
            let id = self.imm32()?;
            return plain(Op::CallBtf { id });
        }
        let (target, local) = match self.peek() {
            Some(Token::Word(w)) if w == "pc" => {
                self.next += 1;
                (Some(Target::By(self.int("a call")?)), true)
            }
            Some(Token::Word(_)) => (Some(self.target()?), true),
            _ => (None, false),
        };
        if !local {
            let helper = self.int("a helper number")?;
            return plain(Op::Call { helper });
        }
        let (insns, _) = plain(Op::CallLocal { target: 1 })?;
        Ok((insns, target.map(|t| (Field::Imm, t))))
    }

    fn store(&mut self) -> Parse<Parsed> {
        let (signed, size) = self.cast()?;
        if signed {
            return Err(AsmErrorKind::Mismatch("stores are unsigned"));
        }
        let (base, off) = self.place_in_parens()?;
        self.need("=")?;
        let src = if self.at_reg() {
            // The 32-bit name is the same register: a store has its own width.
            Operand::Reg(self.reg()?.1)
        } else {
            Operand::Imm(self.imm32()?)
        };
        plain(Op::Store {
            size,
            base,
            off,
            src,
        })
    }

    fn lock(&mut self) -> Parse<Parsed> {
        self.need("*")?;
        let (_, size) = self.cast()?;
        let (base, off) = self.place_in_parens()?;
        let op = match self.sign("an operation")? {
            "+=" => AtomicOp::Add,
            "|=" => AtomicOp::Or,
            "&=" => AtomicOp::And,
            "^=" => AtomicOp::Xor,
            _ => {
                self.next -= 1;
                return Err(self.expected("+=, |=, &= or ^="));
            }
        };
        let src = self.reg()?.1;
        plain(Op::Atomic {
            size,
            op,
            fetch: false,
            base,
            off,
            src,
        })
    }

    /// Everything that starts with a register.
    fn assignment(&mut self) -> Parse<Parsed> {
        let (width, dst) = self.reg()?;
        let op = match self.sign("an operation")? {
            "=" => return self.assign(width, dst),
            "+=" => AluOp::Add,
            "-=" => AluOp::Sub,
            "*=" => AluOp::Mul,
            "/=" => AluOp::Div,
            "s/=" => AluOp::Sdiv,
            "|=" => AluOp::Or,
            "&=" => AluOp::And,
            "<<=" => AluOp::Lsh,
            ">>=" => AluOp::Rsh,
            "%=" => AluOp::Mod,
            "s%=" => AluOp::Smod,
            "^=" => AluOp::Xor,
            "s>>=" => AluOp::Arsh,
            _ => {
                self.next -= 1;
                return Err(self.expected("an operation"));
            }
        };
        let src = self.operand(width)?;
        plain(Op::Alu {
            width,
            op,
            dst,
            src,
        })
    }

    fn assign(&mut self, width: Width, dst: Reg) -> Parse<Parsed> {
        if self.at_reg() {
            let src = Operand::Reg(self.reg_of(width)?);
            return plain(Op::Alu {
                width,
                op: AluOp::Mov,
                dst,
                src,
            });
        }
        if self.eat("*") {
            return self.load(dst);
        }
        if self.eat("(") {
            let op = match self.word("s8, s16 or s32")?.as_str() {
                "s8" => AluOp::Movsx8,
                "s16" => AluOp::Movsx16,
                "s32" => AluOp::Movsx32,
                _ => {
                    self.next -= 1;
                    return Err(self.expected("s8, s16 or s32"));
                }
            };
            self.need(")")?;
            let src = Operand::Reg(self.reg_of(width)?);
            return plain(Op::Alu {
                width,
                op,
                dst,
                src,
            });
        }
        if self.peek() == Some(&Token::Sign("-"))
            && matches!(self.peek_after(), Some(Token::Word(_)))
        {
            self.next += 1;
            if self.reg_of(width)? != dst {
                return Err(AsmErrorKind::Mismatch("negation is in place"));
            }
            return plain(Op::Neg { width, dst });
        }
        if let Some(Token::Word(word)) = self.peek() {
            let word = word.clone();
            self.next += 1;
            return self.named(&word, width, dst);
        }
        let value = self.number()?;
        if self.eat_word("ll") {
            let value = u64::try_from(value)
                .or_else(|_| i64::try_from(value).map(|v| v as u64))
                .map_err(|_| AsmErrorKind::Range {
                    value,
                    field: "64 bits",
                })?;
            return self.imm64(width, dst, Imm64::Value(value));
        }
        let imm = fit(value, "a signed 32-bit immediate")?;
        plain(Op::Alu {
            width,
            op: AluOp::Mov,
            dst,
            src: Operand::Imm(imm),
        })
    }

    fn imm64(&mut self, width: Width, dst: Reg, imm: Imm64) -> Parse<Parsed> {
        if width == Width::W32 {
            return Err(AsmErrorKind::Mismatch(
                "64-bit immediate into a 32-bit register",
            ));
        }
        plain(Op::LoadImm64 { dst, imm })
    }

    fn load(&mut self, dst: Reg) -> Parse<Parsed> {
        let (signed, size) = self.cast()?;
        if self.eat_word("skb") {
            if dst != Reg::R0 {
                return Err(AsmErrorKind::Mismatch("packet access loads r0"));
            }
            self.need("[")?;
            let (index, imm) = if self.at_reg() {
                let index = self.reg_of(Width::W64)?;
                let imm = match self.peek() {
                    Some(Token::Sign("+" | "-")) => self.imm32()?,
                    _ => 0,
                };
                (Some(index), imm)
            } else {
                (None, self.imm32()?)
            };
            self.need("]")?;
            return plain(Op::LoadPacket { size, index, imm });
        }
        let (base, off) = self.place_in_parens()?;
        plain(Op::Load {
            size,
            signed,
            dst,
            base,
            off,
        })
    }

    /// `dst = word ...`.
    fn named(&mut self, word: &str, width: Width, dst: Reg) -> Parse<Parsed> {
        let endian = [
            (Endian::Le, "le"),
            (Endian::Be, "be"),
            (Endian::Swap, "bswap"),
        ];
        for (order, name) in endian {
            let bits = word.strip_prefix(name).and_then(|bits| bits.parse().ok());
            if let Some(bits) = bits {
                if self.reg()?.1 != dst {
                    return Err(AsmErrorKind::Mismatch("byte order changes in place"));
                }
                return plain(Op::Endian { order, bits, dst });
            }
        }
        match word {
            "map" => {
                let map = self.index()?;
                self.ll()?;
                self.imm64(width, dst, Imm64::Map(map))
            }
            "value" => {
                self.need("(")?;
                if !self.eat_word("map") {
                    return Err(self.expected("map"));
                }
                let map = self.index()?;
                self.need(")")?;
                self.need("+")?;
                let offset = self.int("a 32-bit offset")?;
                self.ll()?;
                self.imm64(width, dst, Imm64::MapValue { map, offset })
            }
            "imm64" => {
                self.need("(")?;
                let src = self.int("a kind of immediate")?;
                self.need(",")?;
                let imm = self.imm32()?;
                self.need(",")?;
                let next = self.imm32()?;
                self.need(")")?;
                self.ll()?;
                self.imm64(width, dst, Imm64::Other { src, imm, next })
            }
            "xchg_64" | "xchg32_32" => {
                self.need("(")?;
                self.exchange(word.ends_with("64"), AtomicOp::Xchg, dst)
            }
            "cmpxchg_64" | "cmpxchg32_32" => {
                self.need("(")?;
                self.exchange(word.ends_with("64"), AtomicOp::CmpXchg, dst)
            }
            _ => match word.strip_prefix("atomic_fetch_") {
                Some(name) => self.fetch(name, dst),
                None => {
                    self.next -= 1;
                    Err(self.expected("a value"))
                }
            },
        }
    }

    /// `[3]`.
    fn index(&mut self) -> Parse<u32> {
        self.need("[")?;
        let index = self.int("a map index")?;
        self.need("]")?;
        Ok(index)
    }

    fn ll(&mut self) -> Parse<()> {
        if self.eat_word("ll") {
            Ok(())
        } else {
            Err(self.expected("ll"))
        }
    }

    /// `r1 + 0, r2)` or, comparing, `r1 + 0, r0, r2)`.
    fn exchange(&mut self, wide: bool, op: AtomicOp, dst: Reg) -> Parse<Parsed> {
        let (base, off) = self.place()?;
        self.need(",")?;
        let mut src = self.reg()?.1;
        if op == AtomicOp::CmpXchg {
            if src != Reg::R0 || dst != Reg::R0 {
                return Err(AsmErrorKind::Mismatch(
                    "compare-and-exchange compares and loads r0",
                ));
            }
            self.need(",")?;
            src = self.reg()?.1;
        } else if src != dst {
            return Err(AsmErrorKind::Mismatch(
                "exchange loads the register it stores",
            ));
        }
        self.need(")")?;
        let size = if wide { Size::Dw } else { Size::W };
        plain(Op::Atomic {
            size,
            op,
            fetch: true,
            base,
            off,
            src,
        })
    }

    /// `((u64 *)(r1 + 0), r2)`.
    fn fetch(&mut self, name: &str, dst: Reg) -> Parse<Parsed> {
        let op = match name {
            "add" => AtomicOp::Add,
            "or" => AtomicOp::Or,
            "and" => AtomicOp::And,
            "xor" => AtomicOp::Xor,
            _ => return Err(self.expected("atomic_fetch_add, _or, _and or _xor")),
        };
        self.need("(")?;
        let (_, size) = self.cast()?;
        let (base, off) = self.place_in_parens()?;
        self.need(",")?;
        let src = self.reg()?.1;
        if src != dst {
            return Err(AsmErrorKind::Mismatch("fetch loads the register it adds"));
        }
        self.need(")")?;
        plain(Op::Atomic {
            size,
            op,
            fetch: true,
            base,
            off,
            src,
        })
    }
}

/// `r3`, `w3`.
fn register(word: &str) -> Option<(Width, Reg)> {
    let (width, digits) = match (word.strip_prefix('r'), word.strip_prefix('w')) {
        (Some(d), _) => (Width::W64, d),
        (_, Some(d)) => (Width::W32, d),
        _ => return None,
    };
    let plain = digits == "0" || !digits.starts_with('0');
    let n: u8 = digits.parse().ok()?;
    Reg::new(n).filter(|_| plain).map(|r| (width, r))
}
