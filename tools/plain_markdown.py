"""MyST of a chapter as the Markdown that every notebook program shows: `Writer`, used by tools/notebooks.py."""

from __future__ import annotations

import re
import sys

from numbering import BOOK, TARGET, Directive, Page, labels, pages, pieces, references

sys.path.insert(0, str(BOOK / "_ext"))
from mame_book import excerpt

ROLE = re.compile(r"(\{[\w:]+\})?(`+)((?:(?!\2).)+?)\2(?!`)", flags=re.S)
LINK = re.compile(r"\[(?P<words>[^\[\]]+)\]\((?P<target>[\w-]*)(?:\.md)?(?P<anchor>#[\w-]+)?\)")


class Writer:
    """Turns the MyST of one page into Markdown."""

    def __init__(self, page: Page, site: str | None) -> None:
        self.page, self.site = page, site
        self.cited: list[str] = []

    # ----------------------------------------------------------------------------------------- links and roles

    def address(self, page: str, anchor: str = "") -> str:
        """Of a page: online where there is a site; else the notebook beside this one, or the text of the page."""
        if self.site:
            return f"{self.site}book/{page}.html{anchor}"
        return f"{page}.ipynb" if pages()[page].has_code else f"{page}.md{anchor}"

    def role(self, name: str, text: str) -> str:
        """What stands for {name}`text`."""
        shown = re.fullmatch(r"(?P<words>.+?)\s*<(?P<target>[^<>]+)>", text, flags=re.S)
        target = shown["target"] if shown else text
        words = " ".join(shown["words"].split()) if shown else None
        if name == "math":
            return f"${text}$"
        if name == "term":
            return f"[{words or text}]({self.address('glossary')})"
        if name == "doc":
            return f"[{words or pages()[target].title}]({self.address(target)})"
        if name in {"cite:t", "cite:p"}:
            return self.citation(name, text)
        label = labels()[target]
        if name == "eq":
            return f"({label.number})"
        if not label.number:  # a section
            return self.inline(f"[{words or target}](#{target})")
        if words and words.lower() == label.kind.lower():  # as in the box: "exercise", with its number
            return f"{words} {label.number}"
        return words or f"{label.kind} {label.number}"

    def citation(self, name: str, keys: str) -> str:
        told = []
        for key in (part.strip() for part in keys.split(",")):
            entry = references()[key]
            if key not in self.cited:
                self.cited.append(key)
            told.append(f"{entry.authors} ({entry.year})" if name == "cite:t" else f"{entry.authors}, {entry.year}")
        return " and ".join(told) if name == "cite:t" else f"({'; '.join(told)})"

    def inline(self, text: str) -> str:
        """Roles and links of a stretch of text without directives."""

        def one(found: re.Match[str]) -> str:
            return self.role(found[1][1:-1], found[3]) if found[1] else found[0]

        def link(found: re.Match[str]) -> str:
            words, target, anchor = found["words"], found["target"], found["anchor"] or ""
            if target in pages():
                return f"[{words}]({self.address(target, anchor)})"
            label = labels().get(target or anchor[1:])
            if label is None:
                return found[0]
            # Notebook programs disagree on the anchors of headings, so within a page the words must do.
            return words if label.page == self.page.name else f"[{words}]({self.address(label.page, anchor)})"

        parts = re.split(r"(^```.*?^```\s*?$)", text, flags=re.S | re.M)  # code is left alone
        for k in range(0, len(parts), 2):
            lines = [line for line in parts[k].split("\n") if not TARGET.match(line)]
            parts[k] = LINK.sub(link, ROLE.sub(one, "\n".join(lines)))
        return "".join(parts)

    # ----------------------------------------------------------------------------------------------- directives

    def markdown(self, text: str) -> str:
        """Plain Markdown for MyST `text`, gates of exercises apart, which the caller has taken out."""
        parts = [self.inline(piece) if isinstance(piece, str) else self.directive(piece) for piece in pieces(text)]
        return "\n\n".join(part.strip("\n") for part in parts if part.strip())

    def directive(self, one: Directive) -> str:
        body = "\n".join(one.body)
        if one.name == "math":
            return self.math(body, one.options.get("label"))
        if one.name == "library":
            code, where = excerpt(one.argument, docstring="no-docstring" not in one.options)
            return f"`{one.argument}` ({where}):\n\n```python\n{code}\n```"
        if one.name == "exercise-start":
            label = labels()[one.options["label"]]
            return f"### Exercise {label.number}: {one.argument}"
        if one.name == "prf:algorithm":
            label = labels()[one.options["label"]]
            return quoted(f"Algorithm {label.number} ({one.argument})", self.markdown(body))
        if one.name == "tab-item":
            return f"**{one.argument}**\n\n{self.markdown(body)}"
        if one.name == "grid-item-card":
            link = self.address(one.options["link"])
            return f"- [{one.argument}]({link}): {' '.join(self.markdown(body).split())}"
        if one.name in {"grid", "tab-set"}:
            return self.markdown("\n".join(one.body))
        if one.name in {"admonition", "important", "warning", "note", "tip"}:
            title = self.inline(one.argument) if one.name == "admonition" else one.name.capitalize()
            return quoted(title, self.markdown(body))
        if one.name in {"chapter-box", "exercise-end", "solution-end", "solution-start"}:
            return ""
        raise ValueError(f"{self.page.name}: no Markdown is known for the directive {{{one.name}}}")

    def math(self, body: str, label: str | None) -> str:
        lines = [line for line in body.split("\n") if line.strip()]
        if "\\\\" in body:  # as Sphinx does
            lines = ["\\begin{split}", *lines, "\\end{split}"]
        tag = [f"\\tag{{{labels()[label].number}}}"] if label else []
        return "\n".join(["$$", *lines, *tag, "$$"])

    def caption(self, number: str, text: str) -> str:
        return f"**Fig. {number}** {self.inline(text)}"


def quoted(title: str, text: str) -> str:
    """A box: a block quotation with a bold title."""
    lines = [f"**{title}**", "", *text.split("\n")]
    return "\n".join(f"> {line}".rstrip() for line in lines)
