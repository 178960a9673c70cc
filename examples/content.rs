//! Classifies a file by its bytes: the analysis of the census.
//!
//! Nothing here opens a file or knows processes. Bytes that no format allows are a result, [`Content::Damaged`].

use object::{
    Architecture, BinaryFormat, FileKind, Object, ObjectKind, ObjectSection, ObjectSymbol, SectionKind, elf,
    read::{
        archive::ArchiveFile,
        elf::{Dyn, ElfFile, FileHeader, ProgramHeader},
        macho::{FatArch, MachOFatFile, MachOFatFile32, MachOFatFile64},
    },
};
use procession::RemoteError;
use serde::{Deserialize, Serialize};

use crate::statistics::Histogram;

/// The content of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Content {
    /// Compiled code.
    Binary(Binary),
    /// A text that names the program that runs it.
    Script {
        /// The name of that program. `env` is skipped. Printable.
        interpreter: String,
    },
    /// Anything else.
    Data,
    /// It has the mark of a format and breaks the rules of that format.
    Damaged(String),
}

/// Compiled code: one object, or all objects of an archive or of a universal file together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Binary {
    /// For example `ELF` or `PE`.
    pub format: String,
    /// For example `executable` or `shared object`.
    pub kind: String,
    /// For example `x86_64`.
    pub machine: String,
    /// The sizes of its parts.
    pub sections: Sections,
    /// The entropy of the code in bits per byte, or `None` if there is no code.
    pub entropy: Option<f64>,
    /// The number of symbols that other files must provide.
    pub imports: u64,
}

/// Sizes in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sections {
    /// Instructions.
    pub code: u64,
    /// Read-only data.
    pub constants: u64,
    /// Variables, including those that start as zero and take no space in the file.
    pub variables: u64,
}

impl Content {
    /// Classifies the bytes of a whole file.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        if let Some(interpreter) = interpreter_of(bytes) {
            return Self::Script { interpreter };
        }
        match kind_of(bytes).and_then(|kind| binary_of(bytes, kind)) {
            Ok(Some(binary)) => Self::Binary(binary),
            Ok(None) => Self::Data,
            Err(error) if has_magic(bytes) => Self::Damaged(error.to_string()),
            // No mark of a format, or a mark of two bytes, which other files may have by chance.
            Err(_) => Self::Data,
        }
    }
}

fn kind_of(bytes: &[u8]) -> Result<FileKind, RemoteError> {
    // An archive may be empty. It is then shorter than the shortest file of every other kind.
    if bytes.starts_with(b"!<arch>\n") {
        return Ok(FileKind::Archive);
    }
    Ok(FileKind::parse(bytes)?)
}

/// Returns whether the first bytes claim a format that is marked by at least four bytes, or by `MZ`.
fn has_magic(bytes: &[u8]) -> bool {
    const MAGICS: [&[u8]; 8] = [
        b"\x7fELF",
        b"MZ",
        b"!<arch>\n",
        b"!<thin>\n",
        b"\xfe\xed\xfa\xce",
        b"\xce\xfa\xed\xfe",
        b"\xfe\xed\xfa\xcf",
        b"\xcf\xfa\xed\xfe",
    ];
    MAGICS.iter().any(|magic| bytes.starts_with(magic))
}

/// Returns the name of the program that runs a script. `env` is skipped.
fn interpreter_of(bytes: &[u8]) -> Option<String> {
    /// The length of the first line that Linux reads, in bytes.
    const LONGEST_LINE: usize = 256;

    let line = bytes.strip_prefix(b"#!")?;
    let line = line[..line.len().min(LONGEST_LINE)].split(|&b| b == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_ascii_whitespace().map(|word| word.rsplit('/').next().unwrap_or(word));
    let mut name = words.next()?;
    if name == "env" {
        name = words.find(|word| !word.starts_with('-') && !word.contains('=')).unwrap_or(name);
    }
    Some(name.chars().take(16).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect())
}

/// Examines compiled code. Returns `None` for an archive or a format without any.
fn binary_of(bytes: &[u8], kind: FileKind) -> Result<Option<Binary>, RemoteError> {
    let mut total = Total { file_len_bytes: bytes.len() as u64, ..Total::default() };
    match kind {
        FileKind::Archive => {
            for member in ArchiveFile::parse(bytes)?.members() {
                let member = member?.data(bytes)?;
                if FileKind::parse(member).is_ok_and(is_object) {
                    total.add(member)?;
                }
            }
            total.kind = "archive".to_owned();
        }
        FileKind::MachOFat32 => total.add_slices(&MachOFatFile32::parse(bytes)?, bytes)?,
        FileKind::MachOFat64 => total.add_slices(&MachOFatFile64::parse(bytes)?, bytes)?,
        kind if is_object(kind) => total.add(bytes)?,
        _ => {}
    }
    Ok(total.into_binary())
}

fn is_object(kind: FileKind) -> bool {
    use FileKind as K;
    matches!(
        kind,
        K::Elf32
            | K::Elf64
            | K::Pe32
            | K::Pe64
            | K::MachO32
            | K::MachO64
            | K::Coff
            | K::CoffBig
            | K::Xcoff32
            | K::Xcoff64
    )
}

/// Sums up the objects of one file. The name of the file type comes from the first one.
#[derive(Default)]
struct Total {
    file_len_bytes: u64,
    objects: usize,
    format: String,
    kind: String,
    machine: String,
    sections: Sections,
    code: Histogram,
    imports: u64,
}

impl Total {
    fn add(&mut self, bytes: &[u8]) -> Result<(), RemoteError> {
        let file = object::File::parse(bytes)?;
        if self.objects == 0 {
            self.format = format_name(file.format());
            self.kind = kind_name(&file)?.to_owned();
            self.machine = machine_name(file.architecture());
        }
        self.objects += 1;
        for section in file.sections() {
            self.add_section(&section)?;
        }
        self.imports += match file.kind() {
            ObjectKind::Relocatable => file.symbols().filter(|symbol| symbol.is_undefined()).count(),
            _ => file.imports()?.len(),
        } as u64;
        Ok(())
    }

    fn add_section<'d>(&mut self, section: &impl ObjectSection<'d>) -> Result<(), RemoteError> {
        let size = match section.kind() {
            SectionKind::Text => {
                let code = section.data()?;
                self.sections.code += code.len() as u64;
                // The headers may claim one part of the file as a million sections, and it would be read a million times.
                if self.sections.code > self.file_len_bytes {
                    return Err(RemoteError::msg("sections of code overlap: they are longer than the file"));
                }
                self.code.add(code);
                return Ok(());
            }
            SectionKind::ReadOnlyData | SectionKind::ReadOnlyDataWithRel | SectionKind::ReadOnlyString => {
                &mut self.sections.constants
            }
            SectionKind::Data
            | SectionKind::UninitializedData
            | SectionKind::Common
            | SectionKind::Tls
            | SectionKind::UninitializedTls => &mut self.sections.variables,
            _ => return Ok(()),
        };
        *size = size.saturating_add(section.size());
        Ok(())
    }

    fn add_slices<F: FatArch>(
        &mut self,
        file: &MachOFatFile<'_, F>,
        bytes: &[u8],
    ) -> Result<(), RemoteError> {
        /// More than there are machines. Java classes have the same mark, with a version of 45 or more in this place.
        const MOST_SLICES: usize = 40;

        if file.arches().len() > MOST_SLICES {
            return Ok(());
        }
        for slice in file.arches() {
            self.add(slice.data(bytes)?)?;
        }
        self.machine = "universal".to_owned();
        Ok(())
    }

    fn into_binary(self) -> Option<Binary> {
        let Self { objects, format, kind, machine, sections, code, imports, .. } = self;
        (objects > 0).then(|| Binary { format, kind, machine, sections, entropy: code.entropy(), imports })
    }
}

fn format_name(format: BinaryFormat) -> String {
    match format {
        BinaryFormat::Elf => "ELF".to_owned(),
        BinaryFormat::Pe => "PE".to_owned(),
        BinaryFormat::MachO => "Mach-O".to_owned(),
        BinaryFormat::Coff => "COFF".to_owned(),
        other => format!("{other:?}"),
    }
}

fn machine_name(machine: Architecture) -> String {
    match machine {
        Architecture::Unknown => "unknown".to_owned(),
        known => format!("{known:?}").to_lowercase(),
    }
}

fn kind_name(file: &object::File<'_>) -> Result<&'static str, RemoteError> {
    Ok(match file.kind() {
        ObjectKind::Executable => "executable",
        ObjectKind::Dynamic if is_pie(file)? => "executable",
        ObjectKind::Dynamic => "shared object",
        ObjectKind::Relocatable => "object",
        ObjectKind::Core => "core",
        _ => "other",
    })
}

/// Returns whether a shared object is a program that may be loaded anywhere. ELF has one type for both.
fn is_pie(file: &object::File<'_>) -> Result<bool, RemoteError> {
    fn flagged<E: FileHeader>(file: &ElfFile<'_, E>) -> Result<bool, RemoteError> {
        let endian = file.endian();
        for header in file.elf_program_headers() {
            let Some(entries) = header.dynamic(endian, file.data())? else {
                continue;
            };
            return Ok(entries.iter().any(|entry| {
                let (tag, value): (u64, u64) = (entry.d_tag(endian).into(), entry.d_val(endian).into());
                tag == u64::from(elf::DT_FLAGS_1) && value & u64::from(elf::DF_1_PIE) != 0
            }));
        }
        Ok(false)
    }
    match file {
        object::File::Elf32(file) => flagged(file),
        object::File::Elf64(file) => flagged(file),
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns this test's own executable, a real ELF file that is always available.
    #[cfg(target_os = "linux")]
    fn own_executable() -> Vec<u8> {
        std::fs::read("/proc/self/exe").unwrap()
    }

    /// Creates a small ELF file: a header, one section of code, one of names.
    fn small_elf() -> Vec<u8> {
        const NAMES: &[u8] = b"\0.text\0.shstrtab\0";
        const CODE: &[u8] = &[0x90, 0x90, 0xc3, 0xc3];

        let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        let code_at = 64_u64;
        let names_at = code_at + CODE.len() as u64;
        let sections_at = (names_at + NAMES.len() as u64).next_multiple_of(8);
        // Type (executable), machine (x86-64), version, entry, program headers, section headers, flags.
        bytes.extend([2, 0, 62, 0, 1, 0, 0, 0]);
        bytes.extend([0_u64, 0, sections_at].iter().flat_map(|n| n.to_le_bytes()));
        bytes.extend(0_u32.to_le_bytes());
        // Sizes and numbers of the headers; the index of the names.
        bytes.extend([64_u16, 56, 0, 64, 3, 2].iter().flat_map(|n| n.to_le_bytes()));
        bytes.extend(CODE);
        bytes.extend(NAMES);
        bytes.resize(usize::try_from(sections_at).unwrap(), 0);
        let sections = [
            (0_u32, 0_u32, 0_u64, 0, 0),
            (
                1,
                elf::SHT_PROGBITS,
                u64::from(elf::SHF_ALLOC | elf::SHF_EXECINSTR),
                code_at,
                CODE.len() as u64,
            ),
            (7, elf::SHT_STRTAB, 0, names_at, NAMES.len() as u64),
        ];
        for (name, kind, flags, offset, size) in sections {
            bytes.extend([name, kind].iter().flat_map(|n| n.to_le_bytes()));
            bytes.extend([flags, 0, offset, size].iter().flat_map(|n| n.to_le_bytes()));
            bytes.extend([0; 8]);
            bytes.extend([1_u64, 0].iter().flat_map(|n| n.to_le_bytes()));
        }
        bytes
    }

    fn binary(content: Content) -> Binary {
        match content {
            Content::Binary(binary) => binary,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_small_executable_is_read_right() {
        let found = binary(Content::of(&small_elf()));
        let sections = Sections { code: 4, ..Sections::default() };
        assert_eq!(
            (
                found.format.as_str(),
                found.kind.as_str(),
                found.machine.as_str(),
                found.sections,
                found.imports
            ),
            ("ELF", "executable", "x86_64", sections, 0)
        );
        assert_eq!(found.entropy, Some(1.0));
    }

    #[test]
    fn no_prefix_of_an_executable_panics() {
        let whole = small_elf();
        for len in 0..whole.len() {
            let content = Content::of(&whole[..len]);
            match len {
                0..4 => assert_eq!(content, Content::Data, "{len} bytes"),
                _ => assert!(matches!(content, Content::Damaged(_)), "{len} bytes: {content:?}"),
            }
        }
    }

    #[test]
    fn no_single_byte_of_an_executable_makes_it_panic() {
        let mut bytes = small_elf();
        for at in 0..bytes.len() {
            let right = bytes[at];
            for wrong in [0, 1, 0x7f, 0x80, 0xff] {
                bytes[at] = wrong;
                let _ = Content::of(&bytes);
            }
            bytes[at] = right;
        }
    }

    #[test]
    fn sections_that_overlap_are_damage() {
        let mut bytes = small_elf();
        let whole = bytes.len() as u64;
        // `.text` becomes the whole file, and a fourth section is the same.
        let text = bytes.len() - 2 * 64;
        bytes[text + 24..text + 32].copy_from_slice(&0_u64.to_le_bytes());
        bytes[text + 32..text + 40].copy_from_slice(&whole.to_le_bytes());
        bytes.extend_from_within(text..text + 64);
        bytes[60] = 4;
        let Content::Damaged(error) = Content::of(&bytes) else { panic!("it passed") };
        assert!(error.contains("overlap"), "{error}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_program_that_may_lie_anywhere_is_an_executable() {
        let found = binary(Content::of(&own_executable()));
        assert_eq!((found.format.as_str(), found.kind.as_str()), ("ELF", "executable"));
        assert!(found.sections.code > 0 && found.entropy.is_some_and(|bits| (4.0..8.0).contains(&bits)));
    }

    #[test]
    fn scripts_are_known_by_their_interpreter() {
        fn check(text: &str, expected: Option<&str>) {
            assert_eq!(interpreter_of(text.as_bytes()).as_deref(), expected, "{text}");
        }
        check("#!/bin/sh\nexit", Some("sh"));
        check("#! /usr/bin/perl -w\n", Some("perl"));
        check("#!/usr/bin/env python3\n", Some("python3"));
        check("#!/usr/bin/env -S LANG=C awk -f\n", Some("awk"));
        check("#!/usr/bin/env", Some("env"));
        check("#!/bin/\u{1b}[2J\n", Some("?[2J"));
        check("#!\n", None);
        check("# no script\n", None);
    }

    #[test]
    fn data_is_no_damage() {
        for bytes in [
            &b""[..],
            b"!<arch>\n",
            b"\x7f",
            b"plain words, enough of them",
            b"\x4c\x01 not COFF",
            b"\xca\xfe\xba\xbe\0\0\0\x41 Java, padded",
        ] {
            assert_eq!(Content::of(bytes), Content::Data, "{bytes:?}");
        }
    }

    #[test]
    fn an_archive_is_the_sum_of_its_objects() {
        let object = small_elf();
        let mut bytes = b"!<arch>\n".to_vec();
        for name in ["a.o/", "b.o/"] {
            bytes.extend(
                format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 644, object.len()).bytes(),
            );
            bytes.extend(&object);
        }
        let found = binary(Content::of(&bytes));
        assert_eq!((found.format.as_str(), found.kind.as_str(), found.sections.code), ("ELF", "archive", 8));

        bytes.truncate(bytes.len() - 10);
        assert!(matches!(Content::of(&bytes), Content::Damaged(_)));
    }
}
