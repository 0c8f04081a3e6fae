// verify/report/page.hpp — the parts that every HTML page is put together from.
//
// Arguments named `*_html` are markup already; everything else is escaped here.
#pragma once

#include <string>

#include "verify/verdict.hpp"

namespace dsa::verify {

/// The whole document around `body_html`, made by `program`.
std::string page_of(const std::string& title, const std::string& body_html,
                    const std::string& program = "dsa-verify");

/// "Pass", "pass" in its colour.
std::string title_case(Outcome);
std::string word(Outcome);
std::string word(bool ok);

/// The box on top of a page: its colour, a line above, the large word, a sentence, what to do now.
std::string banner(Outcome, const std::string& eyebrow, const std::string& headline,
                   const std::string& why, const std::string& advice, const std::string& rest_html);

std::string cell(const std::string& kind, const std::string& shown);
std::string th(const std::string& label);
std::string th_number(const std::string& label);
std::string table_of(const std::string& head_html, const std::string& body_html);

/// A definition list row, left out where there is nothing to say.
std::string fact(const std::string& label, const std::string& value, bool code = false);

/// A large number with a line below it.
std::string tile(const std::string& label, const std::string& value, const std::string& below,
                 bool bad = false);

/// Empty without a picture.
std::string figure(const std::string& title, const std::string& caption_html,
                   const std::string& legend_html, const std::string& picture_html);
std::string key(const std::string& kind, const std::string& label);

/// One judged side: figures, tables, notes.
std::string judgement_section(const Verdict&, const Judgement&);

std::string receipt_section(const Receipt&);

}  // namespace dsa::verify
