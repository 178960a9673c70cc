#![allow(unused)]
mod one {
    #[procession::main]
    fn start() {}
}

mod two {
    #[procession::main]
    async fn main() {}
}

mod three {
    #[procession::main(workers = 3)]
    fn main(args: Vec<String>) {}
}

#[procession::main]
struct Main;

fn main() {}
